"""Linear layers through oneDNN compute what torch's do."""

import pytest
import torch
from torch import nn

from milan_pipeline.models.kernels import OneDnnLinear, use_onednn


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12), (1, 1, 12)])
def test_products_and_gradients_equal_those_of_torch(bias, shape):
    torch.manual_seed(0)
    theirs = nn.Linear(12, 7, bias=bias)
    ours = nn.Linear(12, 7, bias=bias)
    ours.load_state_dict(theirs.state_dict())
    use_onednn(ours)
    assert type(ours) is OneDnnLinear
    given = torch.randn(shape)
    left, right = given.clone().requires_grad_(), given.clone().requires_grad_()
    found, expected = ours(left), theirs(right)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(left.grad, right.grad, atol=1e-5, rtol=1e-5)
    for name, parameter in ours.named_parameters():
        other = theirs.get_parameter(name)
        torch.testing.assert_close(parameter.grad, other.grad, atol=1e-5, rtol=1e-5)


def test_an_input_without_gradient_is_given_none():
    layer = nn.Linear(4, 3)
    use_onednn(layer)
    given = torch.randn(2, 4)
    layer(given).sum().backward()
    assert given.grad is None
    assert layer.weight.grad is not None


def test_names_and_layers_of_other_kinds_stay():
    class Special(nn.Linear):
        """A layer with a forward of its own, as some blocks have."""

    module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), Special(4, 4))
    names = list(module.state_dict())
    use_onednn(module)
    assert [type(layer) for layer in module] == [OneDnnLinear, nn.LayerNorm, Special]
    assert list(module.state_dict()) == names
