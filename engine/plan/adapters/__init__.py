"""What turns a plan into something that selects resources.

* :func:`engine.plan.adapters.predicate.predicate`: a function of Python, with CEL's semantics;
* :func:`engine.plan.adapters.sqlalchemy.to_sqlalchemy`: a condition of SQLAlchemy.

Neither ever selects a resource that the filter does not: what cannot be said is an error.
"""

from __future__ import annotations

from engine.plan.adapters.errors import AdapterError
from engine.plan.adapters.predicate import predicate

__all__ = ["AdapterError", "predicate"]
