"""The errors a user sees: each says what is wrong, where, and the way out."""


class DriveError(Exception):
    """Base of every error the command line prints as one line, without a traceback."""


class ConfigError(DriveError):
    """A config key, group or value that does not exist or does not fit; lists all of them at once."""


class DataError(DriveError):
    """A file, record or array that cannot be used: names the file and the record."""


class TokenizerError(DriveError):
    """A codebook that does not fit the request (another dt, another vocabulary, an unknown token)."""


class CheckpointError(DriveError):
    """A checkpoint that is incomplete, or of another model, vocabulary or codebook."""
