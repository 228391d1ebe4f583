"""Every error lorascope raises on purpose: what is wrong, where, what to type next."""


class LorascopeError(Exception):
    """Base class: the command line prints these without a traceback."""


class ShapeError(LorascopeError):
    """Two arrays that must fit together do not."""


class WeightError(LorascopeError):
    """A LoRA's numbers make the question meaningless, or its file is broken."""


class MissingInputError(LorascopeError):
    """Something a tool needs is not there."""


class BadInputError(LorascopeError):
    """Something was found, and cannot be used: a file, a setting, an argument."""


class RecordError(LorascopeError):
    """A record that would mislead its reader."""


class StorageError(LorascopeError):
    """A write failed (no rights, no room); what was already written is intact."""
