"""The index template of flows, on Elasticsearch and OpenSearch: made, brought up to date, and proved to be in force."""

import json
import re
from fnmatch import fnmatchcase
from typing import Any

from sinks.blocks import Unavailable
from sinks.search_client import Address, Answer, Server, reason_of
from transforms.records import InputError

_FIELDS_LEAST = 1000
_PRIORITY = 200
_MANAGED_BY = "flowbeam"
_AT_A_TIME = 50


def set_up(server: Server, address: Address, properties: dict[str, Any], only_check: bool = False) -> list[str]:
    """Makes the template for indices of these properties; an existing one only gains fields, and so do its indices.

    Args:
        server: The connection.
        address: Server and index.
        properties: Of the mapping.
        only_check: Nothing is changed.

    Returns:
        What is changed, or would be.

    Raises:
        Unavailable: The server is away or busy.
        InputError: It refuses the credentials or the template, or another template has the indices.
    """
    makes = []
    if address.keep_days is not None and _set_lifecycle(server, address, only_check):
        makes.append(f"lifecycle policy {address.name}")
    template = _template_there(server, address)
    known = {} if template is None else template["template"]["mappings"]["properties"]
    wanted = _template(address, merged(address, known, properties))
    _check_in_force(server, address, wanted, is_there=template is not None)
    if template is not None and _same(template, wanted):
        return makes
    if not only_check:
        _asked(server, address, "PUT", f"/_index_template/{address.name}", wanted)
        _extend_indices(server, address, wanted)
    return [*makes, f"index template {address.name}"]


def check_prepared(server: Server, address: Address, properties: dict[str, Any]) -> None:
    """Sees that the template is there and has all fields, as far as who may only write may see it.

    Raises:
        Unavailable: The server is away or busy.
        InputError: It refuses the credentials, or the template is missing or has not all fields.
    """
    if server.ask("GET", f"/_index_template/{address.name}").status == 403:
        return
    template = _template_there(server, address)
    known = {} if template is None else template["template"]["mappings"]["properties"]
    if merged(address, known, properties) != known:
        lacks = "there is no index template" if template is None else "fields are missing in the index template"
        command = f"python -m sinks.{address.url.module} --setup URL"
        raise InputError(f"{address.url}: {lacks} {address.name}; let someone run `{command}`, or leave out setup=no")


def _template_there(server: Server, address: Address) -> dict[str, Any] | None:
    """Our template as the server has it."""
    there = _asked(server, address, "GET", f"/_index_template/{address.name}", none=404)
    if there is None:
        return None
    template: dict[str, Any] = there["index_templates"][0]["index_template"]
    if (template.get("_meta") or {}).get("managed_by") != _MANAGED_BY:
        raise InputError(
            f"{address.url}: the server has an index template {address.name} that is not flowbeam's; "
            "choose another index"
        )
    return template


def _template(address: Address, properties: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "number_of_shards": str(address.shards),
        "mapping": {"total_fields": {"limit": str(max(_FIELDS_LEAST, 2 * _fields_in(properties)))}},
    }
    if address.replicas is not None:
        settings["number_of_replicas"] = str(address.replicas)
    if address.keep_days is not None and address.url.module == "elasticsearch":
        settings["lifecycle"] = {"name": address.name, "parse_origination_date": "true"}
    return {
        "index_patterns": [f"{address.name}-*"],
        "priority": _PRIORITY + len(address.name),  # of two that fit a name, the longer one has it
        "template": {"settings": {"index": settings}, "mappings": {"dynamic": "strict", "properties": properties}},
        "_meta": {"managed_by": _MANAGED_BY},
    }


def merged(address: Address, known: dict[str, Any], properties: dict[str, Any], within: str = "") -> dict[str, Any]:
    """The fields of both, for jobs with other feature sets.

    Raises:
        InputError: A field has another type.
    """
    both = dict(known)
    for name, wanted in properties.items():
        there = known.get(name)
        if there is None:
            both[name] = wanted
        elif "properties" in there and "properties" in wanted:
            inner = merged(address, there["properties"], wanted["properties"], f"{within}{name}.")
            both[name] = {**there, "properties": inner}
        elif there.get("type") != wanted.get("type"):
            raise InputError(
                f"{address.url}: {within}{name} is {there.get('type', 'an object')} in the indices there, not "
                f"{wanted.get('type', 'an object')}; choose another index"
            )
    return both


def _same(template: dict[str, Any], wanted: dict[str, Any]) -> bool:
    same = all(template.get(name) == wanted[name] for name in ("index_patterns", "priority", "_meta"))
    inner, ours = template["template"], wanted["template"]
    index = {**inner["settings"]["index"]}
    return same and inner["mappings"] == ours["mappings"] and index == ours["settings"]["index"]


def _fields_in(properties: dict[str, Any]) -> int:
    return sum(1 + _fields_in(field.get("properties", {})) for field in properties.values())


def _check_in_force(server: Server, address: Address, wanted: dict[str, Any], is_there: bool) -> None:
    """Refuses indices that would get the mapping of somebody else's template."""
    name = f"{address.name}-1970.01.01"
    simulated = None if is_there else _json(wanted)
    answer = server.ask("POST", f"/_index_template/_simulate_index/{name}", simulated)
    if answer.status != 200 or answer.body["template"].get("mappings", {}).get("dynamic") == "strict":
        return
    every = _asked(server, address, "GET", "/_index_template")
    others = [
        other["name"]
        for other in every["index_templates"]
        if every
        if any(fnmatchcase(name, pattern) for pattern in other["index_template"]["index_patterns"])
        and other["index_template"].get("priority", 0) > wanted["priority"]
    ]
    whose = f"of the template {others[0]}" if others else "of another template"
    raise InputError(
        f"{address.url}: indices {address.name}-* get the mapping {whose}, not flowbeam's; choose another index, or "
        f"give that template a priority below {wanted['priority']}"
    )


def _extend_indices(server: Server, address: Address, wanted: dict[str, Any]) -> None:
    """Adds the fields to the indices that are there."""
    found = _asked(server, address, "GET", f"/{address.name}-*/_settings?filter_path=*.settings.index.uuid") or {}
    days = sorted(name for name in found if re.fullmatch(rf"{re.escape(address.name)}-\d{{4}}\.\d\d\.\d\d", name))
    mapping = {"properties": wanted["template"]["mappings"]["properties"]}
    for first in range(0, len(days), _AT_A_TIME):
        _asked(server, address, "PUT", f"/{','.join(days[first : first + _AT_A_TIME])}/_mapping", mapping)


def _set_lifecycle(server: Server, address: Address, only_check: bool) -> bool:
    """Lets the server delete indices of days long past, where it knows how to; whether it had no policy for it."""
    age = f"{address.keep_days}d"
    is_elasticsearch = address.url.module == "elasticsearch"
    target = f"/{'_ilm/policy' if is_elasticsearch else '_plugins/_ism/policies'}/{address.name}"
    there = server.ask("GET", target)
    if there.status in (400, 405):
        raise InputError(
            f"{address.url}: keep_days: this server has no lifecycle management: {reason_of(there.body)}; leave it out"
        )
    if there.status != 404:
        _check(address, there)
    if only_check:
        return there.status == 404
    if is_elasticsearch:
        delete = {"delete": {"min_age": age, "actions": {"delete": {}}}}
        _check(address, server.ask("PUT", target, _json({"policy": {"phases": delete}})))
    else:
        _check(address, _set_opensearch_lifecycle(server, address, age, target, there))
    return there.status == 404


def _set_opensearch_lifecycle(server: Server, address: Address, age: str, target: str, there: Answer) -> Answer:
    if there.status == 200:
        target += f"?if_seq_no={there.body['_seq_no']}&if_primary_term={there.body['_primary_term']}"
    states = [
        {"name": "kept", "transitions": [{"state_name": "over", "conditions": {"min_index_age": age}}]},
        {"name": "over", "actions": [{"delete": {}}]},
    ]
    policy = {
        "description": f"Deletes the flows of a day after {age}.",
        "default_state": "kept",
        "states": states,
        "ism_template": [{"index_patterns": [f"{address.name}-*"], "priority": _PRIORITY + len(address.name)}],
    }
    return server.ask("PUT", target, _json({"policy": policy}))


def _asked(
    server: Server, address: Address, method: str, target: str, body: Any = None, none: int | None = None
) -> Any:
    """The body of the answer; None where its status is `none`."""
    answer = server.ask(method, target, None if body is None else _json(body))
    if answer.status == none:
        return None
    _check(address, answer)
    return answer.body


def _check(address: Address, answer: Answer) -> None:
    if answer.status < 300:
        return
    reason = reason_of(answer.body)
    if answer.status == 429 or answer.status >= 500:
        raise Unavailable(reason, answer.after_s)
    if answer.status == 401:
        raise InputError(
            f"{address.url}: the server refuses the credentials: {reason}; set {address.variables}API_KEY, or "
            f"{address.variables}USER and {address.variables}PASSWORD"
        )
    if answer.status == 403:
        raise InputError(
            f"{address.url}: not allowed to manage index templates: {reason}; let someone who is run `python -m "
            f"sinks.{address.url.module} --setup URL`, then add setup=no to the URL"
        )
    raise InputError(f"{address.url}: the server refuses the index template: {reason}")


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
