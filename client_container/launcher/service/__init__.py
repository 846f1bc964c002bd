"""The launcher as a service of a volunteer's machine: `dockercomp-launcher serve`."""
