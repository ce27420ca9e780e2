#!/usr/bin/env bash
# The tables of schema/pekko are those that the persistence plugin of Apache Pekko works with: `schema apply --dir` creates
# them on a Cassandra of its own, and the plugin itself (tests/pekko) writes, recovers and queries.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cache=${CASCOR_TEST_CACHE:-$HOME/.cache/cascor-ingest}
CASS_VERSION=${CASS_VERSION:-5.0.9}
jars=$cache/pekko
nodes=$cache/cassandra-$CASS_VERSION
host=127.$(($$ / 250 % 200 + 20)).$(($$ % 250 + 1))
port=19242

skip() { echo "SKIPPED: $*"; exit 77; }

# Java 17 also where the default is another: Cassandra 5.0 runs on nothing newer.
is_17() { "$1/bin/javac" -version 2>&1 | grep -q '^javac 17[.]'; }
for home in "${JAVA_HOME:-}" "$(dirname "$(dirname "$(readlink -f "$(command -v javac || echo /none/bin/javac)")")")" \
    /usr/lib/jvm/*17*; do
    if [[ -n $home && -x $home/bin/javac ]] && is_17 "$home"; then found=$home; break; fi
done
[[ -n ${found:-} ]] || skip "no JDK 17 (openjdk-17-jdk-headless)"
export JAVA_HOME=$found CASS_VERSION

# Fetched once for each pom.xml.
stamp=$(sha256sum <tests/pekko/pom.xml)
if [[ $(cat "$jars/.pom" 2>/dev/null) != "$stamp" ]]; then
    command -v mvn >/dev/null || skip "no Maven (mvn) to fetch the plugin with"
    rm -rf "$jars"
    mkdir -p "$jars"
    mvn -B -q -f tests/pekko/pom.xml org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$jars" </dev/null >"$jars/.log" 2>&1 \
        || { tail -n 5 "$jars/.log"; skip "Maven cannot fetch the plugin"; }
    echo "$stamp" >"$jars/.pom"
fi
mkdir -p "$nodes"
tests/parts/cassandra.sh fetch "$nodes" || skip "Maven cannot fetch Cassandra $CASS_VERSION"

work=$(mktemp -d)
trap 'CASS_STOP_S=1 tests/parts/cassandra.sh wipe "$work/cassandra"; rm -rf "$work"' EXIT
tests/parts/cassandra.sh start "$work/cassandra" 1 --jars "$nodes" --net "$host" --port "$port"
"$JAVA_HOME/bin/javac" -Xlint:all -Werror -d "$work/classes" -cp "$jars/*" tests/pekko/Journal.java

program=$(tests/parts/program.sh)
export CASCOR_INGEST__STORE__KIND=cassandra CASCOR_INGEST__STORE__CASSANDRA__CONTACT_POINTS="$host.1:$port"
schema() { "$program" schema "$1" --dir schema/pekko "${@:2}"; }
schema apply --replication SimpleStrategy:1 >"$work/apply.log" || { cat "$work/apply.log"; exit 1; }
schema verify

"$JAVA_HOME/bin/java" -Xmx256m -XX:TieredStopAtLevel=1 -cp "tests/pekko:$work/classes:$jars/*" Journal "$host.1" "$port" \
    2> >(grep -v '^SLF4J' >&2) # there is no SLF4J binding, on purpose
schema verify # nothing was added or changed by the plugin
