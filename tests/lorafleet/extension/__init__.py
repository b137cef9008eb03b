"""A package that adds entries to the catalog, as `LORAFLEET_EXTENSIONS` names one."""
