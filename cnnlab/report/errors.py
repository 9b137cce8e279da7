"""The one error of the report."""


class ReportError(ValueError):
    """A folder that cannot be reported on; the message is one line and names the file (and line) at fault."""
