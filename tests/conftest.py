"""Its place puts this folder on the path of imports, for what several folders of tests share (``fakes``)."""
