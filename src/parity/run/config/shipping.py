"""Section `[shipping]`: bundle, kernel and Kaggle."""

from typing import Literal

from pydantic import Field

from parity.run.config.section import Section


class ShippingConfig(Section):
    """How the adapter is published on Kaggle and runs there."""

    owner: str = Field("", pattern=r"^[a-z0-9-]*$")
    """Kaggle user name that owns datasets and kernels; empty means the logged-in account."""
    license: str = ""
    """License of the bundle by Kaggle's name, such as apache-2.0; required by publish."""
    base_license: str = ""
    """SPDX license of the base model, if its folder does not state one; its dataset needs one."""
    model: str = Field("", pattern=r"^$|^([\w.-]+/){4}[1-9][0-9]*$")
    """Kaggle model that holds the base, owner/model/framework/variation/version; empty means that
    the base is uploaded as a dataset."""
    wheels: tuple[str, ...] = ("bitsandbytes",)
    """Packages that the kernel needs and Kaggle's image does not contain."""
    device: Literal["cpu", "t4x2", "l4x1", "l4x4", "a100", "h100"] = "t4x2"
    """Kaggle accelerator that the kernel runs on."""
    hours: float = Field(9.0, gt=0.0)
    """Time limit of a kernel in the competition, in hours."""
    queries: int = Field(16000, ge=1)
    """Expected rows of the hidden test, for the time estimate."""
    rehearsed: int = Field(2000, ge=1)
    """Rows of the generated hidden test that the rehearsal ranks."""
