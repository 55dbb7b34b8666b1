"""``python -m course_lib <command>``."""

from course_lib.cli import main

if __name__ == "__main__":
    main()
