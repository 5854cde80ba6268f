"""The admin API of Cerbos: who may use it, and what it does to the store of the policies."""
