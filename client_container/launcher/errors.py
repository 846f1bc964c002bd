"""What can go wrong, named after what happened; each message is one sentence for a person."""


class LauncherError(Exception):
    """The base of all of them."""


class EngineError(LauncherError):
    """The Docker engine did not do what it was asked."""


class EngineAway(EngineError):
    """No Docker engine answers."""


class EngineTooOld(EngineError):
    """The Docker engine has known holes in its walls."""


class ImageMissing(EngineError):
    """The image is not on this machine."""


class BadRequest(LauncherError):
    """The launcher was asked for something that cannot be."""


class AlreadyRunning(LauncherError):
    """Another launcher of this instance runs."""


class NotStarted(LauncherError):
    """A detached launcher did not get its containers running."""


class NotStopped(LauncherError):
    """A running launcher does not end."""
