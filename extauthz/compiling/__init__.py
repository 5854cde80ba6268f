"""``extauthz compile``: policies are read, compiled and tested, and what comes of it is shown.

One module per stage: :mod:`command` is the command line, :mod:`stages` reads, compiles and tests,
:mod:`problems` is what is wrong with policies, :mod:`problem_text` and :mod:`results_text` show things to
people.
"""
