"""A run in progress, seen from its files alone: on this machine or in a folder that another one shares."""

from g2sd_deploy.watching.command import as_json, follow, show_once, snapshot

__all__ = ["as_json", "follow", "show_once", "snapshot"]
