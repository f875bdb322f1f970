"""Client of lorad, the multi-tenant LoRA server."""

from lorad.client import Generation, LoradClient, LoradError

__all__ = ["Generation", "LoradClient", "LoradError"]
