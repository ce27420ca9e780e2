#!/usr/bin/env bash
# Run a real Apache Cassandra (1..3 nodes on loopback) from its Maven artifact.
#
#   cassandra.sh fetch  JARS                    resolve the jars into JARS (idempotent, offline once done)
#   cassandra.sh start  DIR N [options]         start N (1..3) nodes, wait until they serve CQL and see each other
#   cassandra.sh up     DIR I                   start (again) node I of an existing DIR, wait for its CQL port
#   cassandra.sh stop   DIR [I]                 SIGTERM, SIGKILL after $CASS_STOP_S seconds (all nodes, or node I)
#   cassandra.sh kill   DIR I                   SIGKILL node I
#   cassandra.sh pause  DIR I | resume DIR I    SIGSTOP / SIGCONT node I
#   cassandra.sh wipe   DIR                     stop everything, delete DIR
#   cassandra.sh status DIR                     one line per node: address, pid, state, rss, cql
#   cassandra.sh query  DIR I "CQL" [CL]        run one statement on node I, print OK or the server's error
#   cassandra.sh tool   DIR I ARGS...           nodetool against node I (needs start --jmx)
#   cassandra.sh cds    JARS                    train a class-data-sharing archive for this JVM (faster starts)
#
# options of start (remembered in DIR/cluster.env, so `up` and a later `start` reuse them):
#   --jars JARS      jar directory (default $CASS_JARS, else DIR/jars, fetched when absent)
#   --port P         native port, the same on every node (default 9042)
#   --storage-port P internode port (default native port + 1000)
#   --net A.B.C      nodes listen on A.B.C.1 ... A.B.C.3 (default 127.0.0; another /24 of 127/8 = another cluster)
#   --heap 512m      -Xmx of each node
#   --jit c1|full    c1: quick start, less CPU in tests; full: C2 too, for throughput measurements (default c1)
#   --sync MODE      commitlog_sync: periodic (default, as the server's: a SIGKILL loses the last ~0.1 s of
#                    acknowledged rows), batch or group (acknowledged = on disk)
#   --fast-ddl       unsafesystem: quicker DDL; the schema and all rows are LOST on SIGKILL
#   --auth           PasswordAuthenticator + CassandraAuthorizer, superuser cassandra/cassandra
#   --tls            client TLS required; CA certificate in DIR/tls/ca.pem
#   --jmx P          JMX on 127.0.0.1:P, P+1, P+2
#   --yaml FILE      appended to cassandra.yaml (later keys win)
#   --jvm "FLAGS"    more JVM flags
#   --timeout S      give up waiting after S seconds (default 120)
# environment: CASS_VERSION (5.0.9; 4.1.10 works too), CASS_JARS, CASS_STOP_S, JAVA_HOME. Needs bash, mvn, JDK 17
# (11 for 4.1 alone), coreutils, util-linux; openssl with --tls.
set -euo pipefail

CASS_VERSION=${CASS_VERSION:-5.0.9}
CASS_STOP_S=${CASS_STOP_S:-20}
PLUGIN=org.apache.maven.plugins:maven-dependency-plugin:3.6.1
JAVA=${JAVA_HOME:+$JAVA_HOME/bin/}java
KEYTOOL=${JAVA_HOME:+$JAVA_HOME/bin/}keytool

die() { echo "cassandra.sh: $*" >&2; exit 1; }
abspath() { mkdir -p "$1" && (cd "$1" && pwd -P); }
usage() { sed -n '2,/^set -euo/p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 2; }

# ---------------------------------------------------------------- jars
jars_ready() { [[ -s $1/.jars && $(head -n1 "$1/.jars") == "cassandra-all $CASS_VERSION" ]] \
    && (cd "$1" && tail -n +2 .jars | xargs -d '\n' ls >/dev/null 2>&1); }

fetch() {
    local dir tmp; dir=$(abspath "$1")
    exec 8>"$dir/.lock"; flock 8
    if jars_ready "$dir"; then exec 8>&-; return 0; fi
    command -v mvn >/dev/null || die "mvn not found (Maven 3.6+ is needed to fetch Cassandra)"
    tmp=$(mktemp -d)
    cat >"$tmp/pom.xml" <<POM
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>cassandra-runtime</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies><dependency>
    <groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId><version>$CASS_VERSION</version>
  </dependency></dependencies>
</project>
POM
    local args=(-B -q -f "$tmp/pom.xml" "$PLUGIN:copy-dependencies" -DincludeScope=runtime -DoutputDirectory="$tmp/lib"
        -DexcludeClassifiers=osx-aarch_64,osx-x86_64,windows-x86_64,linux-riscv64)
    # the local Maven repository first: no network at all when it is warm
    if ! mvn -o "${args[@]}" >"$tmp/log" 2>&1; then
        rm -rf "$tmp/lib"
        mvn "${args[@]}" >"$tmp/log" 2>&1 || { tail -n 20 "$tmp/log" >&2; rm -rf "$tmp"; die "maven could not resolve cassandra-all:$CASS_VERSION"; }
    fi
    rm -f "$dir"/*.jar "$dir/.jars" "$dir"/cds-*.jsa
    mv "$tmp"/lib/*.jar "$dir/"
    { echo "cassandra-all $CASS_VERSION"; (cd "$dir" && ls -- *.jar); } >"$dir/.jars.new"
    mv "$dir/.jars.new" "$dir/.jars"
    rm -rf "$tmp"
    exec 8>&-
}

# ---------------------------------------------------------------- a CQL v4 client in bash (readiness and checks)
hex() { local i; for ((i = 0; i < ${#1}; i += 2)); do printf '%b' "\\x${1:i:2}"; done; }
str_hex() { printf %s "$1" | od -An -v -tx1 | tr -d ' \n'; }
CQL_IN= CQL_OUT= CQL_PID=
cql_open() { # host port [ca.pem]
    cql_close
    if [[ -n ${3:-} ]]; then
        coproc TLSCLIENT { exec openssl s_client -quiet -verify_quiet -verify_return_error -CAfile "$3" -connect "$1:$2" 2>/dev/null; } 2>/dev/null
        CQL_PID=$TLSCLIENT_PID # bash hides a coproc's own descriptors from subshells and pipes: duplicate them
        { exec {CQL_IN}<&"${TLSCLIENT[0]}" {CQL_OUT}>&"${TLSCLIENT[1]}"; } 2>/dev/null || { cql_close; return 1; }
    else
        { exec {CQL_IN}<>"/dev/tcp/$1/$2"; } 2>/dev/null || { CQL_IN=; return 1; }
        CQL_OUT=$CQL_IN
    fi
}
cql_close() {
    if [[ -n $CQL_IN ]]; then exec {CQL_IN}<&-; fi
    if [[ -n $CQL_PID ]]; then
        if [[ -n $CQL_OUT ]]; then exec {CQL_OUT}>&-; fi
        kill "$CQL_PID" 2>/dev/null || true; wait "$CQL_PID" 2>/dev/null || true
    fi
    CQL_PID= CQL_IN= CQL_OUT=
}
RSP_OP= RSP_BODY=
cql_frame() { # opcode(hex) body(hex) [timeout]; sets RSP_OP, RSP_BODY (hex)
    local h len t=${3:-10}
    (trap "" PIPE; hex "04000000$1$(printf %08x $((${#2} / 2)))$2") 2>/dev/null >&"$CQL_OUT" || return 1 # openssl may be gone: no reason to die
    h=$(timeout "$t" head -c 9 <&"$CQL_IN" 2>/dev/null | od -An -v -tx1 | tr -d ' \n') || true
    [[ ${#h} == 18 ]] || return 1
    RSP_OP=${h:8:2}; len=$((16#${h:10:8})); RSP_BODY=
    ((len == 0)) || RSP_BODY=$(timeout "$t" head -c "$len" <&"$CQL_IN" 2>/dev/null | od -An -v -tx1 | tr -d ' \n')
}
cql_options() { cql_open "$1" "$2" "${3:-}" && cql_frame 05 "" 2 && [[ $RSP_OP == 06 ]]; } # SUPPORTED
cql_error() { # human readable text of an ERROR frame
    local n=$((16#${RSP_BODY:8:4})); printf 'ERROR 0x%s ' "${RSP_BODY:4:4}"; hex "${RSP_BODY:12:n*2}"; echo
}
cql_query() { # host port ca user pass consistency(hex4) cql -> "OK", or the error; 1 on error, 2 when unreachable
    local q len rc=0
    cql_open "$1" "$2" "$3" || return 2
    cql_frame 01 "0001000b$(str_hex CQL_VERSION)0005$(str_hex 3.0.0)" || { cql_close; return 2; }
    if [[ $RSP_OP == 03 ]]; then
        q="00$(str_hex "$4")00$(str_hex "$5")"
        cql_frame 0f "$(printf %08x $((${#q} / 2)))$q" || { cql_close; return 2; }
    fi
    if [[ $RSP_OP == 02 || $RSP_OP == 10 ]]; then
        q=$(str_hex "$7"); cql_frame 07 "$(printf %08x $((${#q} / 2)))$q${6}00" 15 || { cql_close; return 2; }
    fi
    if [[ $RSP_OP == 08 ]]; then echo OK; else cql_error; rc=1; fi
    cql_close; return $rc
}
cl_hex() { case ${1^^} in ONE) echo 0001 ;; QUORUM) echo 0004 ;; ALL) echo 0005 ;; LOCAL_QUORUM) echo 0006 ;; LOCAL_ONE) echo 000a ;; *) die "consistency $1?" ;; esac; }

# ---------------------------------------------------------------- one node
load() { DIR=$(cd "$1" 2>/dev/null && pwd -P) && [[ -s $DIR/cluster.env ]] || die "$1 holds no cluster"; . "$DIR/cluster.env"; }
addr() { echo "$NET.$1"; }
ca() { [[ $TLS == 1 ]] && echo "$DIR/tls/ca.pem" || true; }
pid_of() { # prints the pid of node I when that very process is alive
    local p a; p=$(cat "$DIR/node$1/pid" 2>/dev/null) || return 1
    [[ $p =~ ^[0-9]+$ && -r /proc/$p/cmdline ]] || return 1
    while IFS= read -r -d '' a; do
        if [[ $a == "-Dcassandra.storagedir=$DIR/node$1" ]]; then echo "$p"; return 0; fi
    done 2>/dev/null <"/proc/$p/cmdline"
    return 1
}
gone() { # the process (all its threads, so its sockets too) has ended
    local st; [[ -e /proc/$1/stat ]] || return 0
    st=$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) || return 0
    [[ -z $st || ($st == [ZX] && $(ls "/proc/$1/task" 2>/dev/null | wc -l) -le 1) ]]
}

write_conf() { # node
    local i=$1 d=$DIR/node$1 seeds token k
    mkdir -p "$d/log"
    seeds=$(for ((k = 1; k <= N; k++)); do printf '%s%s:%s' "${sep:-}" "$(addr $k)" "$STORAGE"; sep=,; done)
    case $N-$i in *-1) token=-9223372036854775807 ;; 2-2) token=0 ;; 3-2) token=-3074457345618258603 ;; 3-3) token=3074457345618258602 ;; esac
    cat >"$d/cassandra.yaml" <<YAML
cluster_name: loopback
num_tokens: 1
initial_token: $token
auto_bootstrap: false
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
listen_address: $(addr "$i")
rpc_address: $(addr "$i")
storage_port: $STORAGE
ssl_storage_port: $((STORAGE + 1))
native_transport_port: $PORT
start_native_transport: true
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{seeds: "$seeds"}]
commitlog_sync: $SYNC
commitlog_segment_size: 32MiB
commitlog_total_space: 256MiB
disk_optimization_strategy: ssd
memtable_allocation_type: heap_buffers
memtable_flush_writers: 1
concurrent_reads: 8
concurrent_writes: 16
concurrent_counter_writes: 4
concurrent_compactors: 1
compaction_throughput: 64MiB/s
key_cache_size: 0MiB
counter_cache_size: 0MiB
file_cache_size: 32MiB
networking_cache_size: 16MiB
prepared_statements_cache_size: 10MiB
auto_snapshot: false
snapshot_before_compaction: false
hinted_handoff_enabled: true
hints_flush_period: 1000ms
YAML
    if [[ $SYNC == periodic ]]; then echo "commitlog_sync_period: 10000ms" >>"$d/cassandra.yaml"; fi
    if [[ $SYNC == group ]]; then echo "commitlog_sync_group_window: 10ms" >>"$d/cassandra.yaml"; fi
    if [[ $AUTH == 1 ]]; then cat >>"$d/cassandra.yaml" <<YAML
authenticator: PasswordAuthenticator
authorizer: CassandraAuthorizer
role_manager: CassandraRoleManager
YAML
    fi
    if [[ $TLS == 1 ]]; then cat >>"$d/cassandra.yaml" <<YAML
client_encryption_options:
  enabled: true
  optional: false
  keystore: $DIR/tls/node.p12
  keystore_password: cassandra
  store_type: PKCS12
  require_client_auth: false
YAML
    fi
    if [[ -n $YAML ]]; then cat "$YAML" >>"$d/cassandra.yaml"; fi
    cat >"$d/logback.xml" <<'XML'
<configuration scan="false">
  <appender name="F" class="ch.qos.logback.core.FileAppender">
    <file>${cassandra.logdir}/system.log</file>
    <encoder><pattern>%-5level [%thread] %date{ISO8601} %F:%L - %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="F"/></root>
</configuration>
XML
}

module_args() { # what conf/jvm17-server.options opens
    local m
    for m in java.base/jdk.internal.misc java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry \
        java.rmi/sun.rmi.server java.sql/java.sql java.base/java.lang.ref jdk.unsupported/sun.misc \
        jdk.compiler/com.sun.tools.javac.file jdk.attach/sun.tools.attach; do echo "--add-exports=$m=ALL-UNNAMED"; done
    for m in java.lang.module jdk.internal.loader jdk.internal.ref jdk.internal.reflect jdk.internal.math jdk.internal.module \
        jdk.internal.util.jar sun.nio.ch java.io java.lang.reflect java.lang java.util java.nio; do echo "--add-opens=java.base/$m=ALL-UNNAMED"; done
    printf '%s\n' --add-opens=jdk.management/com.sun.management.internal=ALL-UNNAMED --add-opens=jdk.compiler/com.sun.tools.javac=ALL-UNNAMED
}
jvm_args() { # node -> one argument per line (jar dir and heap from the cluster's settings)
    local i=$1 d=$DIR/node$1 cds j m
    printf '%s\n' -ea -da:net.openhft... -Xms"${XMS:-128m}" -Xmx"$HEAP" -Xss256k -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError -XX:-UsePerfData \
        -XX:MaxDirectMemorySize=256m -XX:ReservedCodeCacheSize=96m -Djdk.attach.allowAttachSelf=true
    [[ $JIT == full ]] || echo -XX:TieredStopAtLevel=1
    cds=$(cds_file "$JARS"); if [[ -s $cds && ${CASS_NO_CDS:-0} == 0 ]]; then printf '%s\n' -XX:SharedArchiveFile="$cds" -Xshare:auto -Xlog:cds=off -Xlog:class+path=off; fi
    module_args
    printf '%s\n' -Dio.netty.tryReflectionSetAccessible=true -Dio.netty.allocator.useCacheForAllThreads=true \
        -Dio.netty.allocator.maxOrder=11 -Dio.netty.eventLoopThreads=2 -Djava.net.preferIPv4Stack=true -Djava.awt.headless=true \
        -Dcassandra.config="file://$d/cassandra.yaml" -Dcassandra.storagedir="$d" -Dcassandra.logdir="$d/log" \
        -Dcassandra.triggers_dir="$d" -Dlogback.configurationFile="$d/logback.xml" -Dcassandra-foreground=yes \
        -Dcassandra.skip_wait_for_gossip_to_settle=0 -Dcassandra.ring_delay_ms=1000 -Dcassandra.superuser_setup_delay_ms=0 \
        -Dcassandra.memtable.row_overhead_size=180 -Dcassandra.consistent.rangemovement=false -Dcassandra.shutdown_announce_in_ms=0 \
        -Djava.io.tmpdir="$d/tmp"
    # no flush of system tables: quicker DDL, but a SIGKILL forgets the schema and with it every row
    if [[ $FASTDDL == 1 ]]; then echo -Dcassandra.unsafesystem=true; fi
    for j in "$JARS"/jamm-0.3*.jar; do # 4.1: needs the agent (5.0 does without) and, on Java 17, more opened packages
        if [[ -e $j ]]; then
            echo "-javaagent:$j"
            for m in java.util.concurrent java.util.concurrent.atomic java.util.concurrent.locks java.util.regex java.nio.file java.nio.charset java.net \
                java.security java.text java.time javax.security.auth sun.nio.fs sun.security.provider jdk.internal.perf jdk.internal.misc; do echo "--add-opens=java.base/$m=ALL-UNNAMED"; done
            for m in javax.management sun.management com.sun.jmx.mbeanserver; do echo "--add-opens=java.management/$m=ALL-UNNAMED"; done
        fi
    done
    if ((JMX)); then echo "-Dcassandra.jmx.local.port=$((JMX + i - 1))"; fi
    if [[ -n ${JVM:-} ]]; then printf '%s\n' $JVM; fi
}

launch() { # node
    local i=$1 d=$DIR/node$1 args p k
    pid_of "$i" >/dev/null && return 0
    mkdir -p "$d/tmp" "$d/log"
    if [[ -s $d/pid ]]; then # a node killed from outside may still be exiting
        for ((k = 0; k < 100; k++)); do gone "$(cat "$d/pid")" && break; sleep 0.05; done
    fi
    if (exec 3<>"/dev/tcp/$(addr "$i")/$PORT") 2>/dev/null; then die "$(addr "$i"):$PORT is already in use"; fi
    write_conf "$i"
    mapfile -t args < <(jvm_args "$i")
    (cd "$d" && exec setsid "$JAVA" "${args[@]}" -cp "$(class_path "$JARS")" org.apache.cassandra.service.CassandraDaemon) \
        >"$d/log/stdout.log" 2>&1 </dev/null 8>&- & # the JVM's own pid: the subshell execs twice (setsid does not fork here)
    p=$!
    echo "$p" >"$d/pid"
    disown "$p" 2>/dev/null || true
    for ((k = 0; k < 100; k++)); do # until the exec chain has become java (or has failed)
        [[ $(readlink "/proc/$p/exe") == */java ]] && pid_of "$i" >/dev/null && return 0
        kill -0 "$p" 2>/dev/null || break
        sleep 0.02
    done
    die "node $i did not start: $(tail -n 5 "$d/log/stdout.log")"
}
class_path() { (cd "$1" && printf "$1/%s:" *.jar) | sed 's/:$//'; }
cds_file() { echo "$1/cds-$("$JAVA" -XshowSettings:properties -version 2>&1 | awk '/java.vm.version =/{print $3}').jsa"; }

wait_cql() { # node deadline
    local i=$1
    until cql_options "$(addr "$i")" "$PORT" "$(ca)"; do
        cql_close
        pid_of "$i" >/dev/null || { tail -n 15 "$DIR/node$i/log/stdout.log" "$DIR/node$i/log/system.log" >&2 || true; die "node $i died while starting"; }
        ((SECONDS < $2)) || die "node $i: no CQL after ${TIMEOUT}s, see $DIR/node$i/log"
        sleep 0.1
    done
    cql_close
}
wait_query() { # node deadline consistency cql : retry until the server says OK
    local out
    until out=$(cql_query "$(addr "$1")" "$PORT" "$(ca)" cassandra cassandra "$(cl_hex "$3")" "$4"); do
        ((SECONDS < $2)) || die "node $1: '$4' at $3 still fails: $out"
        sleep 0.1
    done
}
wait_ready() { # all nodes serve CQL; each sees all others up and in system.peers
    local i k deadline=$((SECONDS + TIMEOUT)) table=system_distributed.view_build_status where="keyspace_name='x' AND view_name='x'"
    for ((i = 1; i <= N; i++)); do wait_cql $i $deadline; done
    if [[ $AUTH == 1 ]]; then for ((i = 1; i <= N; i++)); do wait_query $i $deadline ONE "SELECT key FROM system.local"; done; fi
    ((N > 1)) || return 0
    # RF 2 / RF 3 system keyspaces at ALL answer only when the coordinator believes every replica to be up
    if ((N == 2)); then table=system_traces.sessions where="session_id=00000000-0000-1000-8000-000000000000"; fi
    for ((i = 1; i <= N; i++)); do
        wait_query $i $deadline ALL "SELECT * FROM $table WHERE $where"
        for ((k = 1; k <= N; k++)); do if ((k != i)); then
            until peer_known $i "$(addr $k)"; do ((SECONDS < deadline)) || die "node $i does not list node $k in system.peers"; sleep 0.1; done
        fi; done
    done
}
peer_known() { cql_query "$(addr "$1")" "$PORT" "$(ca)" cassandra cassandra 0001 "SELECT host_id FROM system.peers WHERE peer='$2'" >/dev/null \
    && [[ ${RSP_BODY: -40:8} == 00000010 ]]; } # the last cell is a 16-byte uuid: one row

make_tls() {
    local t=$DIR/tls san; [[ -s $t/ca.pem && -s $t/node.p12 ]] && return 0
    rm -rf "$t"; mkdir -p "$t"
    san="dns:localhost,ip:$(addr 1),ip:$(addr 2),ip:$(addr 3)"
    local k=("$KEYTOOL" -storetype PKCS12 -storepass cassandra -keypass cassandra)
    "${k[@]}" -genkeypair -keystore "$t/ca.p12" -alias ca -keyalg EC -groupname secp256r1 -validity 3650 -dname CN=loopback-ca -ext bc:c=ca:true -ext ku:c=keyCertSign
    "${k[@]}" -exportcert -keystore "$t/ca.p12" -alias ca -rfc -file "$t/ca.pem"
    "${k[@]}" -genkeypair -keystore "$t/node.p12" -alias node -keyalg EC -groupname secp256r1 -validity 3650 -dname CN=localhost
    "${k[@]}" -certreq -keystore "$t/node.p12" -alias node -file "$t/node.csr"
    "${k[@]}" -gencert -keystore "$t/ca.p12" -alias ca -validity 3650 -rfc -infile "$t/node.csr" -outfile "$t/node.pem" -ext "san=$san" -ext eku=serverAuth
    "${k[@]}" -importcert -keystore "$t/node.p12" -alias ca -noprompt -file "$t/ca.pem"
    "${k[@]}" -importcert -keystore "$t/node.p12" -alias node -noprompt -file "$t/node.pem"
} 2>/dev/null

start() {
    (($# >= 2)) || usage
    DIR=$(abspath "$1"); local n=$2 i; shift 2
    [[ $n =~ ^[123]$ ]] || die "N must be 1, 2 or 3"
    JARS=${CASS_JARS:-$DIR/jars} PORT=9042 STORAGE= NET=127.0.0 HEAP=512m JIT=c1 SYNC=periodic AUTH=0 TLS=0 FASTDDL=0 JMX=0 YAML= JVM= TIMEOUT=120 XMS=128m
    if [[ -s $DIR/cluster.env ]]; then . "$DIR/cluster.env"; [[ $N == "$n" ]] || die "$DIR holds a cluster of $N nodes, not $n (wipe it first)"; fi
    N=$n
    while (($#)); do
        case $1 in
        --jars) JARS=$2; shift ;; --port) PORT=$2; shift ;; --storage-port) STORAGE=$2; shift ;; --net) NET=$2; shift ;;
        --heap) HEAP=$2; shift ;; --jit) JIT=$2; shift ;; --sync) SYNC=$2; shift ;; --auth) AUTH=1 ;; --tls) TLS=1 ;; --fast-ddl) FASTDDL=1 ;;
        --jmx) JMX=$2; shift ;; --yaml) YAML=$(realpath "$2"); shift ;; --jvm) JVM=$2; shift ;; --timeout) TIMEOUT=$2; shift ;;
        --xms) XMS=$2; shift ;;
        *) die "unknown option $1" ;;
        esac; shift
    done
    STORAGE=${STORAGE:-$((PORT + 1000))}
    JARS=$(abspath "$JARS"); fetch "$JARS"
    for i in CASS_VERSION JARS PORT STORAGE NET HEAP JIT SYNC AUTH TLS FASTDDL JMX YAML JVM TIMEOUT XMS N; do printf '%s=%q\n' $i "${!i}"; done >"$DIR/cluster.env"
    if [[ $TLS == 1 ]]; then make_tls; fi
    for ((i = 1; i <= N; i++)); do launch $i; done
    wait_ready
}
up() { load "$1"; launch "$2"; wait_cql "$2" $((SECONDS + TIMEOUT)); }

cds() { # one throw-away node on a random 127.x.y.1 records the classes it loads
    local jars out tmp net; jars=$(abspath "$1"); fetch "$jars"; out=$(cds_file "$jars")
    if [[ -s $out ]]; then return 0; fi
    tmp=$(mktemp -d); net=127.$((RANDOM % 200 + 20)).$((RANDOM % 250 + 1))
    (
        trap 'CASS_STOP_S=0; if [[ -e $tmp/cluster.env ]]; then wipe "$tmp"; fi' EXIT # interrupted: leave no node behind
        start "$tmp" 1 --jars "$jars" --net "$net" --heap 512m --jvm "-XX:ArchiveClassesAtExit=$out.$$"
        for q in "CREATE KEYSPACE k WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}" \
            "CREATE TABLE k.t (a int, b int, c text, d double, PRIMARY KEY (a, b))" "INSERT INTO k.t (a, b, c, d) VALUES (1, 2, 'x', 3.5) USING TTL 60" \
            "BEGIN UNLOGGED BATCH INSERT INTO k.t (a, b) VALUES (1, 3) INSERT INTO k.t (a, b) VALUES (1, 4) APPLY BATCH" \
            "SELECT * FROM k.t" "INSERT INTO k.t (a, b) VALUES (1, 5) IF NOT EXISTS" "DROP TABLE k.t"; do
            cql_query "$net.1" 9042 "" "" "" 0001 "$q" >/dev/null || die "training: $q"
        done
        CASS_STOP_S=90 stop "$tmp"
    )
    mv "$out.$$" "$out"; rm -rf "$tmp"
}

nodes() { if [[ -n ${1:-} ]]; then echo "$1"; else seq 1 "$N"; fi; }
stop() {
    load "$1"; local i t p pids=()
    for i in $(nodes "${2:-}"); do if p=$(pid_of "$i"); then kill -TERM "$p"; kill -CONT "$p"; pids[i]=$p; fi; done
    t=$((SECONDS + CASS_STOP_S))
    for i in "${!pids[@]}"; do
        until gone "${pids[i]}"; do
            if ((SECONDS >= t)); then kill -KILL "${pids[i]}" 2>/dev/null || true; fi
            sleep 0.05
        done
    done
    for i in $(nodes "${2:-}"); do rm -f "$DIR/node$i/pid"; done
}
send() { # signal DIR node
    load "$2"; local p; p=$(pid_of "$3") || die "node $3 is not running"; kill "-$1" "$p"
    if [[ $1 == KILL ]]; then until gone "$p"; do sleep 0.02; done; rm -f "$DIR/node$3/pid"; fi
}
wipe() { [[ -e $1 ]] || return 0; stop "$1"; rm -rf "$DIR"; }
status() {
    load "$1"; local i p st rc=0
    for ((i = 1; i <= N; i++)); do
        if p=$(pid_of "$i"); then
            st=$(awk '/^State/{print $2}' "/proc/$p/status")
            if [[ $st == T ]]; then st=paused; elif cql_options "$(addr $i)" "$PORT" "$(ca)"; then st=serving; else st=starting; fi; cql_close
            echo "node$i $(addr $i):$PORT pid=$p $st rss_mib=$(($(awk '/^VmRSS/{print $2}' "/proc/$p/status") / 1024))"
        else echo "node$i $(addr $i):$PORT stopped"; rc=1; fi
    done
    return $rc
}
query() { load "$1"; cql_query "$(addr "$2")" "$PORT" "$(ca)" cassandra cassandra "$(cl_hex "${4:-ONE}")" "$3"; }
tool() {
    load "$1"; local i=$2; shift 2; ((JMX)) || die "start the cluster with --jmx PORT first"
    local args; mapfile -t args < <(module_args)
    "$JAVA" -Xmx64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "${args[@]}" -Duser.home="$DIR/node$i/tmp" -cp "$(class_path "$JARS")" -Dlogback.configurationFile="$DIR/node$i/logback.xml" \
        -Dcassandra.logdir="$DIR/node$i/tmp" -Dcassandra.storagedir="$DIR/node$i" -Dcassandra.config="file://$DIR/node$i/cassandra.yaml" \
        org.apache.cassandra.tools.NodeTool -h 127.0.0.1 -p $((JMX + i - 1)) "$@"
}

(($#)) || usage
cmd=$1; shift
case $cmd in
fetch) fetch "${1:?JARS}" ;;
cds) cds "${1:?JARS}" ;;
start) start "$@" ;;
up) up "${1:?DIR}" "${2:?node}" ;;
stop) stop "${1:?DIR}" "${2:-}" ;;
kill) send KILL "${1:?DIR}" "${2:?node}" ;;
pause) send STOP "${1:?DIR}" "${2:?node}" ;;
resume) send CONT "${1:?DIR}" "${2:?node}" ;;
wipe) wipe "${1:?DIR}" ;;
status) status "${1:?DIR}" ;;
query) query "${1:?DIR}" "${2:?node}" "${3:?cql}" "${4:-ONE}" ;;
tool) tool "$@" ;;
*) usage ;;
esac
