"""The code that runs inside the sandbox. The tests and the program run in separate processes without rights.

`sandbox.py` starts `main` in its own interpreter, which uses the standard library only. The processes are

    launcher           receives orders, one program after the other
    └── starter        builds the walls, and kills the referee when the wall-clock limit is reached
        └── referee    inside the walls: runs the tests and writes the verdict; its end ends all processes below
            └── player runs the program, then only answers calls

The Linux kernel enforces every wall: refused system calls (syscalls.py), limits, rights, keys and namespaces
(walls.py), or Landlock instead of namespaces (landlock.py). The player is forked before the referee reads the tests.
It cannot read the referee's memory, and it has no access to the tests or to the verdict's pipe. Its answers arrive as
values of Python's own types (values.py). Therefore an object that claims to equal everything, a patched `assert`, an
exit or a printed "passed" has no effect. To pass, a program must return the values that the tests expect.
"""
