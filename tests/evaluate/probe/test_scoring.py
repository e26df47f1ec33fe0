"""Scoring by k-NN and logistic regression ends at once where a stop is asked for."""

import os
import signal
import threading

import pytest
from sklearn.linear_model import LogisticRegression

from milan_pipeline.core.interrupts import StopRequest, stop_request
from milan_pipeline.errors import InterruptedRunError
from milan_pipeline.evaluate.probe.feature_cache import FeatureSet
from milan_pipeline.evaluate.probe.scoring import Classifiers, Sets, classify
from tests.support.labelled import blobs


def sets(stop):
    train, test = (
        FeatureSet(stored_NF=features, labels_N=labels, pools=("any",), bad=(), names=b"")
        for features, labels in (blobs(6, spread=0.1, seed=seed) for seed in (1, 2))
    )
    return Sets(train=train, test=test, views=1, view=lambda _: train, stop=stop)


def test_a_stop_while_a_regression_is_fitted_ends_the_process(monkeypatch, capfd):
    """The process would be gone; here it is noted with which code it would have ended."""
    codes, ended, fit = [], threading.Event(), LogisticRegression.fit

    def ends(code):
        codes.append(code)
        ended.set()

    def stopped(regression, *examples):
        if not codes:
            os.kill(os.getpid(), signal.SIGTERM)
            assert ended.wait(60)
        return fit(regression, *examples)

    monkeypatch.setattr(os, "_exit", ends)
    monkeypatch.setattr(LogisticRegression, "fit", stopped)
    with stop_request() as stop:
        classify(sets(stop), "cls", Classifiers(ks=(1,), temperature=0.07))
    assert codes == [75]
    assert "SIGTERM received; features are kept, no scores were written" in capfd.readouterr().err


def test_a_stop_before_it_is_heeded():
    stop = StopRequest()
    stop.signal_name = "SIGUSR1"
    with pytest.raises(InterruptedRunError, match="features are kept"):
        classify(sets(stop), "cls", Classifiers(ks=(1,), temperature=0.07))
