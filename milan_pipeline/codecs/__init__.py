"""How targets are stored: float tokens to codes and back, behind one interface."""

from milan_pipeline.codec_spec import CodecSpec, parse_codec, spec_of
from milan_pipeline.codecs.interface import Attempt, Codec, Encoded, require_encodable
from milan_pipeline.codecs.prior_codes import decode_prior, encode_prior
from milan_pipeline.codecs.registry import codec_of, make_codec

__all__ = [
    "Attempt",
    "Codec",
    "CodecSpec",
    "Encoded",
    "codec_of",
    "decode_prior",
    "encode_prior",
    "make_codec",
    "parse_codec",
    "require_encodable",
    "spec_of",
]
