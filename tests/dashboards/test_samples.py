"""What a trainer drew, and where a run came from: shown before anything was measured."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest_samples import *  # noqa
