"""Fixtures of tests on servers of their own."""

from tests.support.servers import outage, s3_server

__all__ = ["outage", "s3_server"]
