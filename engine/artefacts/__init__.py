"""What is made of policies, in a form that can be kept: read files, compiled expressions.

Two things take long when policies are loaded: reading YAML to typed values, and compiling CEL. Both depend on
a text alone (and on what :mod:`engine.artefacts.edition` says), so both can be done once, by another process
(:mod:`engine.artefacts.crew`) or before (:mod:`engine.artefacts.cache`). Everything else is always done anew
from these two, by the same code: what is kept cannot change a decision, a fault, a warning or a place.
Mistakes are not kept: a text that is wrong is read again, and says so again.
"""
