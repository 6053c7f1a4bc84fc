"""Filters of lists (`[[attribute, operator, operand], ...]`) as SQL.

Used by `listing` and `contents`. Values only ever go into the statement as bound parameters, column names
only after a look into the schema. Pure functions over a `Binds`; one `Binds` belongs to one statement.
Operators and their meaning: Arvados API, "available list method filters".
"""

import json
import re
from collections.abc import Callable
from typing import Any

from arvados_fuse.local.records.apierror import invalid
from arvados_fuse.local.records.attributes import Attribute
from arvados_fuse.local.records.identifiers import parse_time
from arvados_fuse.local.records.schema import BY_RECORD_KIND, Resource

# Each filter is a piece of SQL, and SQLite is slow with statements of thousands of pieces.
MAX_FILTERS = 200
MAX_OPERANDS = 10_000
"""Values in the operand of `in` or `contains`."""

_COMPARE = {
    "=": "=",
    "==": "=",
    "eq": "=",
    "!=": "!=",
    "<>": "!=",
    "<": "<",
    "<=": "<=",
    ">": ">",
    ">=": ">=",
}
_PROPERTY = re.compile(r"(\w+)\.(?:<([^>]*)>|(.+))", re.DOTALL)
_COLUMNS = re.compile(r"\(\s*(\w+)\s*(<=|>=|<|>|!=|=)\s*(\w+)\s*\)")
_SEARCHED = ("string", "text", "Hash", "Array")

ColumnSql = Callable[[str], str]
"""The SQL of an attribute by name, for attributes that filters and orders may use. Raises ApiError 422."""


class Binds:
    """The bound parameters of one statement."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def add(self, value: Any) -> str:
        """Take `value` in and give the name to write into the statement."""
        name = f"p{len(self.values)}"
        self.values[name] = value
        return f":{name}"

    def array(self, values: list[Any]) -> str:
        """SQL of a subquery that yields `values`; one parameter, however many they are."""
        return f"(SELECT value FROM json_each({self.add(json.dumps(values))}))"


def compile_filters(resource: Resource, filters: list[Any], binds: Binds, column: ColumnSql) -> str:
    """SQL that holds for the records of `resource` which fulfil every filter; `1` for no filter.

    column: gives the SQL of an attribute. Raises ApiError 422 for unknown attributes, operators and wrong
        operands.
    """
    if len(filters) > MAX_FILTERS:
        raise invalid(f"at most {MAX_FILTERS} filters are possible")
    return " AND ".join(_one(resource, item, binds, column) for item in filters) or "1"


def where_as_filters(where: Any) -> list[Any]:
    """The older `where` argument (attribute to value, or to an array of values) as filters."""
    if not isinstance(where, dict):
        raise invalid("where must be an object")
    return [[name, "in" if isinstance(value, list) else "=", value] for name, value in where.items()]


def _one(resource: Resource, item: Any, binds: Binds, column: ColumnSql) -> str:
    if isinstance(item, str):
        item = [item, "=", True]
    if not isinstance(item, list) or len(item) != 3:
        raise invalid("each filter must be an array of attribute, operator and operand")
    name, operator, operand = item
    if not isinstance(name, str) or not isinstance(operator, str):
        raise invalid("a filter's attribute and operator must be strings")
    operator = " ".join(operator.lower().split())
    if name == "any":
        return _any(resource, operator, operand, binds, column)
    if comparison := _COLUMNS.fullmatch(name):
        if operator != "=" or not isinstance(operand, bool):
            raise invalid(f"a filter on {name[:80]!r} must compare it with true or false")
        test = f"({column(comparison[1])} {comparison[2]} {column(comparison[3])})"
        return test if operand else f"(NOT {test})"
    name = name.removeprefix(f"{resource.name}.")
    attribute = resource.by_name.get(name)
    if attribute is None and name == "file_names" and resource.name == "collections":
        attribute = Attribute("file_names", "text")
    if attribute is None:
        if match := _PROPERTY.fullmatch(name):
            return _property(resource, match, operator, operand, binds, column)
        raise invalid(f"{resource.name} have no attribute {name[:80]!r}")
    return _plain(attribute, column(name), operator, operand, binds)


def _plain(attribute: Attribute, sql: str, operator: str, operand: Any, binds: Binds) -> str:
    if operator == "exists" and attribute.type == "Hash":
        if not isinstance(operand, str):
            raise invalid(f"the operand of exists on {attribute.name} must be a string")
        return f"EXISTS (SELECT 1 FROM json_each({sql}) WHERE key = {binds.add(operand)})"
    if operator == "contains" and attribute.type == "Array":
        wanted = [_scalar(value) for value in (operand if isinstance(operand, list) else [operand])]
        if len(wanted) > MAX_OPERANDS:
            raise invalid(f"the operand of contains on {attribute.name} has at most {MAX_OPERANDS} values")
        missing = f"SELECT 1 FROM {binds.array(wanted)} AS wanted WHERE wanted.value NOT IN"
        return f"NOT EXISTS ({missing} (SELECT value FROM json_each({sql})))"
    if operator == "is_a":
        return _is_a(attribute, sql, operand, binds)
    if operator in ("like", "ilike", "not like", "not ilike"):
        return _like(attribute.name, sql, operator, operand, binds)
    if operator in ("in", "not in"):
        if not isinstance(operand, list) or len(operand) > MAX_OPERANDS:
            raise invalid(
                f"the operand of {operator} on {attribute.name} must be an array of at most {MAX_OPERANDS}"
            )
        values = [_operand(attribute, value) for value in operand if value is not None]
        null = f"{sql} IS NULL"
        if operator == "in":
            found = f"{sql} IN {binds.array(values)}"
            return f"({found} OR {null})" if None in operand else found
        missing = f"{sql} NOT IN {binds.array(values)}"
        return f"({missing} AND NOT {null})" if None in operand else f"({null} OR {missing})"
    compare = _COMPARE.get(operator)
    if compare is None:
        raise invalid(f"there is no operator {operator[:40]!r} for {attribute.name}")
    if operand is None:
        if compare not in ("=", "!="):
            raise invalid(f"null can only be compared with = and != ({attribute.name})")
        return f"{sql} IS {'NOT ' if compare == '!=' else ''}NULL"
    value = binds.add(_operand(attribute, operand))
    if compare == "!=":
        return f"({sql} IS NULL OR {sql} != {value})"
    return f"{sql} {compare} {value}"


def _is_a(attribute: Attribute, sql: str, operand: Any, binds: Binds) -> str:
    operands = operand if isinstance(operand, list) else [operand]
    if not attribute.name.endswith("uuid") or not all(isinstance(item, str) for item in operands):
        raise invalid(
            f"is_a needs a uuid attribute and a record kind such as arvados#collection ({attribute.name})"
        )
    kinds = [BY_RECORD_KIND[item].kind for item in operands if item in BY_RECORD_KIND]
    return f"substr({sql}, 7, 5) IN {binds.array(kinds)}"


def _like(name: str, sql: str, operator: str, operand: Any, binds: Binds) -> str:
    if not isinstance(operand, str):
        raise invalid(f"the operand of {operator} on {name} must be a string")
    function = "arv_ilike" if operator.endswith("ilike") else "arv_like"
    test = f"{function}({binds.add(operand)}, {sql})"
    return f"NOT coalesce({test}, 0)" if operator.startswith("not") else test


def _operand(attribute: Attribute, value: Any) -> Any:
    """An operand in the form that the column has. Raises ApiError 422 on another type."""
    kind = attribute.type
    if kind in ("string", "text") and isinstance(value, str):
        return value
    if kind in ("integer", "float"):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
            return int(value)
    if kind == "boolean":
        if isinstance(value, bool):
            return int(value)
        if value in ("true", "false"):
            return int(value == "true")
    if kind == "datetime" and isinstance(value, str) and (moment := parse_time(value)) is not None:
        return moment
    if kind in ("Hash", "Array") and isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if kind in ("Hash", "Array") and isinstance(value, str):
        return value
    raise invalid(f"wrong type of operand for {attribute.name}: {json.dumps(value)[:80]}")


def _scalar(value: Any) -> str | int | float:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (str, int, float)):
        return value
    raise invalid("the operand must be a string or a number")


def _any(resource: Resource, operator: str, operand: Any, binds: Binds, column: ColumnSql) -> str:
    columns = [item for item in resource.attributes if item.type in _SEARCHED and item.stored]
    if operator in ("like", "ilike"):
        tests = [
            f"coalesce({_like('any', column(item.name), operator, operand, binds)}, 0)" for item in columns
        ]
        if resource.name == "collections":
            tests.append(_like("any", column("file_names"), operator, operand, binds))
    elif operator in ("=", "in"):
        strings = [item for item in columns if item.type in ("string", "text")]
        tests = [
            f"coalesce({_plain(item, column(item.name), operator, operand, binds)}, 0)" for item in strings
        ]
    else:
        raise invalid(f"there is no operator {operator[:40]!r} for any")
    return f"({' OR '.join(tests)})"


def _property(
    resource: Resource, match: re.Match[str], operator: str, operand: Any, binds: Binds, column: ColumnSql
) -> str:
    name, quoted, bare = match.groups()
    attribute = resource.by_name.get(name)
    if attribute is None or attribute.type != "Hash":
        raise invalid(f"{resource.name} have no attribute {match[0][:80]!r}")
    key = binds.add(quoted if quoted is not None else bare)
    rows = f"SELECT value, type FROM json_each({column(name)}) WHERE key = {key}"
    if operator == "exists":
        if operand in (True, False, "true", "false"):
            return f"{'' if operand in (True, 'true') else 'NOT '}EXISTS ({rows})"
        raise invalid("the operand of exists on a property must be true or false")
    if operator == "contains":
        value = binds.add(_scalar(operand))
        inner = f"SELECT 1 FROM json_each({column(name)}, '$') AS p WHERE p.key = {key} AND "
        return (
            f"(EXISTS ({inner} p.type NOT IN ('array', 'object') AND p.value = {value})"
            f" OR EXISTS ({inner} p.type = 'array'"
            f" AND EXISTS (SELECT 1 FROM json_each(p.value) AS q WHERE q.value = {value})))"
        )
    if operator in ("like", "ilike"):
        return f"EXISTS ({rows} AND {_like('a property', 'value', operator, operand, binds)})"
    if operator in ("in", "not in"):
        if not isinstance(operand, list) or len(operand) > MAX_OPERANDS:
            raise invalid(f"the operand of {operator} must be an array of at most {MAX_OPERANDS}")
        test = f"EXISTS ({rows} AND value IN {binds.array([_scalar(item) for item in operand])})"
        return test if operator == "in" else f"NOT {test}"
    compare = _COMPARE.get(operator)
    if compare is None:
        raise invalid(f"there is no operator {operator[:40]!r} for a property")
    if operand is None and compare in ("=", "!="):
        return f"{'NOT ' if compare == '=' else ''}EXISTS ({rows} AND type != 'null')"
    # Numbers compare with numbers and texts with texts: SQLite would call any text greater than any number.
    kinds = (
        "('text')"
        if isinstance(operand, str)
        else "('true', 'false')"
        if isinstance(operand, bool)
        else "('integer', 'real')"
    )
    if compare == "!=":
        return f"NOT EXISTS ({rows} AND type IN {kinds} AND value = {binds.add(_scalar(operand))})"
    return f"EXISTS ({rows} AND type IN {kinds} AND value {compare} {binds.add(_scalar(operand))})"
