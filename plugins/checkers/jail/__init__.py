"""What runs in the jail: the tests, and in another process, without rights and behind walls, the program.

Only the standard library is used: `sandbox.py` starts `main` in an interpreter of its own. The processes are

    launcher           takes orders, one program after the other
    └── starter        puts up the walls, and ends what takes too long
        └── referee    behind them: runs the tests, writes the verdict; where it ends, everything does
            └── player runs the program, then does nothing but answer calls

Every wall is of the kernel: system calls that are refused (syscalls.py), limits, rights, keys and namespaces
(walls.py), or Landlock in the place of namespaces (landlock.py). The player is forked before the referee reads the
tests, cannot read its memory, and has neither them nor the pipe of the verdict. What it says comes as values of
Python's own types (values.py): an object that claims to equal everything, a patched `assert`, an exit, a printed
"passed" reach nobody. To pass, a program must return what the tests expect.
"""
