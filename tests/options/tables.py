"""The tables of all commands."""

from tests.options.files import EXPORT, IMPORT, INDEX, PACK_IMAGES
from tests.options.finetune import FINETUNE
from tests.options.looking import COMPARE, DOCTOR, INSPECT, PLAN, RECIPES, SUBMIT
from tests.options.pretrain import PRETRAIN
from tests.options.probe import PROBE
from tests.options.segment import SEGMENT
from tests.options.targets import CODECS, EXTRACT, PACK_TARGETS, STATUS, TRANSCODE, VERIFY

TABLES = (
    *(PACK_IMAGES, INDEX),
    *(PLAN, EXTRACT, STATUS, VERIFY, CODECS, TRANSCODE, PACK_TARGETS),
    *(IMPORT, PRETRAIN, PROBE, FINETUNE, SEGMENT, COMPARE, INSPECT),
    *(EXPORT, RECIPES, SUBMIT, DOCTOR),
)
