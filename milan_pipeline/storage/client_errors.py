"""What the errors of file systems' clients mean.

Clients raise errors of their own, not only `OSError`; here they become ours, in one sentence.
"""

import contextlib
from collections.abc import Iterator

from milan_pipeline.errors import MilanError, MissingDataError, StorageError, reason_of
from milan_pipeline.storage.retries import is_refusal, lacks_credentials
from milan_pipeline.storage.write_check import refuses_checksums, remedy


@contextlib.contextmanager
def named_errors(url: str, doing: str) -> Iterator[None]:
    """Turn what a file system raises into our errors.

    Args:
        url: what is worked on.
        doing: "read", "written" or "listed".

    Raises:
        MissingDataError: what is read does not exist.
        StorageError: anything else failed.
    """
    try:
        yield
    except MilanError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        if doing == "written":
            reason = reason_of(error)
            raise StorageError(
                f"{url} cannot be written ({reason}); create its bucket or folder, or correct it"
            ) from error
        raise MissingDataError(f"{url} does not exist; check the path") from error
    except Exception as error:
        inner = str(getattr(error, "filename", None))  # a folder below one that is listed
        what = f"{inner if inner.startswith(url) else url} cannot be {doing} ({reason_of(error)})"
        raise StorageError(f"{what}; {_remedy(error, url, doing)}") from error


def _remedy(error: Exception, url: str, doing: str) -> str:
    if lacks_credentials(error):
        return (
            "give credentials by the store's usual environment (such as AWS_PROFILE, "
            "AWS_ACCESS_KEY_ID or GOOGLE_APPLICATION_CREDENTIALS)"
        )
    if is_refusal(error):
        credentials = ", and the credentials in the environment" if "://" in url else ""
        return f"check who may access it{credentials}"
    if doing == "written" and refuses_checksums(error):
        return remedy()
    return "make room or fix it" if doing == "written" else "check the path"
