"""Runs CQL with the DataStax driver and prints the rows as JSON lines: a client that is not ours.

usage: cql.py HOST PORT KEYSPACE [USER PASSWORD [CA]]; statements on standard input, one a line; '-' is no keyspace.
After a tab may follow the values of its question marks, as a JSON array.
"""
import datetime
import json
import math
import ssl
import sys
import uuid

from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster, ExecutionProfile, EXEC_PROFILE_DEFAULT
from cassandra.policies import WhiteListRoundRobinPolicy
from cassandra.query import dict_factory


def plain(value):
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # "nan", "inf", "-inf": JSON has none of them
    if isinstance(value, datetime.datetime):
        return int(value.replace(tzinfo=datetime.timezone.utc).timestamp() * 1000 + 0.5)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "items"):
        return {str(key): plain(item) for key, item in value.items()}
    try:
        return sorted(plain(item) for item in value)
    except TypeError:
        return str(value)


def bound(value):
    try:
        return uuid.UUID(value)
    except (TypeError, AttributeError, ValueError):
        return value


def execute(session, line):
    statement, _, values = line.partition("\t")
    if not values:
        return session.execute(statement)
    return session.execute(session.prepare(statement), [bound(value) for value in json.loads(values)])


def main():
    host, port, keyspace = sys.argv[1:4]
    login = PlainTextAuthProvider(*sys.argv[4:6]) if len(sys.argv) > 5 else None
    context = None
    if len(sys.argv) > 6:
        context = ssl.create_default_context(cafile=sys.argv[6])
        context.check_hostname = False
    profile = ExecutionProfile(
        load_balancing_policy=WhiteListRoundRobinPolicy([host]), row_factory=dict_factory, request_timeout=60
    )
    cluster = Cluster(
        [host], port=int(port), auth_provider=login, ssl_context=context, protocol_version=4,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile}, schema_metadata_enabled=False, token_metadata_enabled=False,
    )
    session = cluster.connect(None if keyspace == "-" else keyspace)
    for line in sys.stdin:
        if line.strip():
            for row in execute(session, line.strip()):
                print(json.dumps({name: plain(value) for name, value in row.items()}))
    cluster.shutdown()


main()
