"""`make docs`: write what of the pages is made from the code."""

from tests.pages import config, hardware, write

for page in (config, hardware):
    write(page.PAGE, page.made())
    print(page.PAGE)
