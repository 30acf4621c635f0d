"""The plugin host: hooks, registries, and the origin of every registered object."""

from harness.host.candidates import Candidate
from harness.host.plugin_host import PluginHost, PluginInfo, default_host, load_plugins

__all__ = ["Candidate", "PluginHost", "PluginInfo", "default_host", "load_plugins"]
