"""Any competition that consists of plain tables, described by the section `[competition]`."""
