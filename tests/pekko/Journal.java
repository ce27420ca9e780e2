import com.datastax.oss.driver.api.core.CqlSession;
import com.datastax.oss.driver.api.core.cql.Row;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import org.apache.pekko.actor.ActorRef;
import org.apache.pekko.actor.ActorSystem;
import org.apache.pekko.actor.Props;
import org.apache.pekko.pattern.Patterns;
import org.apache.pekko.persistence.AbstractPersistentActor;
import org.apache.pekko.persistence.DeleteMessagesSuccess;
import org.apache.pekko.persistence.SaveSnapshotFailure;
import org.apache.pekko.persistence.SaveSnapshotSuccess;
import org.apache.pekko.persistence.SnapshotOffer;
import org.apache.pekko.persistence.cassandra.query.javadsl.CassandraReadJournal;
import org.apache.pekko.persistence.journal.Tagged;
import org.apache.pekko.persistence.query.EventEnvelope;
import org.apache.pekko.persistence.query.Offset;
import org.apache.pekko.persistence.query.PersistenceQuery;
import org.apache.pekko.stream.javadsl.Sink;
import org.apache.pekko.stream.javadsl.Source;

/**
 * Uses the tables of schema/pekko as an application does, through the plugin itself, and compares them with the tables
 * that the plugin would have created. Arguments: host, port. Ends with status 1 at the first thing that is not as expected.
 */
public final class Journal {
    private static final String ID = "ledger-1";
    private static final String TAG = "dataflow";

    /** Keeps the words it was told; each is an event with a tag. */
    static final class Ledger extends AbstractPersistentActor {
        private String words = "";
        private long replayed;
        private long snapshotAt;
        private ActorRef asked;

        @Override
        public String persistenceId() {
            return ID;
        }

        @Override
        public Receive createReceiveRecover() {
            return receiveBuilder()
                    .match(SnapshotOffer.class, offer -> {
                        words = (String) offer.snapshot();
                        snapshotAt = offer.metadata().sequenceNr();
                    })
                    .match(String.class, word -> {
                        words += word;
                        replayed++;
                    })
                    .build();
        }

        @Override
        public Receive createReceive() {
            return receiveBuilder()
                    .matchEquals("!snapshot", any -> {
                        asked = getSender();
                        saveSnapshot(words);
                    })
                    .match(SaveSnapshotSuccess.class, any -> asked.tell("saved", getSelf()))
                    .match(SaveSnapshotFailure.class, failure -> asked.tell("failed: " + failure.cause(), getSelf()))
                    .matchEquals("!delete", any -> {
                        asked = getSender();
                        deleteMessages(snapshotAt);
                    })
                    .match(DeleteMessagesSuccess.class, any -> asked.tell("deleted", getSelf()))
                    .matchEquals("!state", any ->
                            getSender().tell(words + " snapshot=" + snapshotAt + " replayed=" + replayed, getSelf()))
                    .match(String.class, word -> persist(new Tagged(word, Set.of(TAG)), stored -> {
                        words += word;
                        getSender().tell("stored", getSelf());
                    }))
                    .build();
        }
    }

    public static void main(String[] args) throws Exception {
        String host = args[0];
        int port = Integer.parseInt(args[1]);
        Config config = ConfigFactory.parseString(
                        "datastax-java-driver.basic.contact-points = [\"" + host + ":" + port + "\"]\n"
                        + "pekko.persistence.cassandra.events-by-tag.first-time-bucket = \"" + lastHour() + "\"")
                .withFallback(ConfigFactory.load());
        try {
            writeAndSnapshot(config);
            recoverAndQuery(config);
            recoverAfterDeletion(config);
            try (CqlSession session = CqlSession.builder()
                    .addContactPoint(new InetSocketAddress(host, port))
                    .withLocalDatacenter("datacenter1")
                    .build()) {
                everyTableWasUsed(session);
                sameAsThePluginsOwn(config, session);
            }
        } catch (Throwable error) {
            error.printStackTrace();
            System.exit(1);
        }
        System.exit(0); // whatever thread of a library is left
    }

    private static void writeAndSnapshot(Config config) throws Exception {
        ActorSystem system = ActorSystem.create("first", config);
        try {
            ActorRef ledger = system.actorOf(Props.create(Ledger.class, Ledger::new));
            for (String word : List.of("a", "b", "c", "d", "e")) {
                expect("stored", ask(ledger, word));
            }
            expect("saved", ask(ledger, "!snapshot"));
            for (String word : List.of("f", "g", "h")) {
                expect("stored", ask(ledger, word));
            }
            expect("abcdefgh snapshot=0 replayed=0", ask(ledger, "!state"));
        } finally {
            stop(system);
        }
        System.out.println("events and a snapshot are stored");
    }

    private static void recoverAndQuery(Config config) throws Exception {
        ActorSystem system = ActorSystem.create("second", config);
        try {
            ActorRef ledger = system.actorOf(Props.create(Ledger.class, Ledger::new));
            expect("abcdefgh snapshot=5 replayed=3", ask(ledger, "!state"));
            expect("stored", ask(ledger, "i"));
            System.out.println("a new actor system recovers from the snapshot and the events after it");

            CassandraReadJournal journal = PersistenceQuery.get(system)
                    .getReadJournalFor(CassandraReadJournal.class, CassandraReadJournal.Identifier());
            List<EventEnvelope> tagged = await(journal.eventsByTag(TAG, Offset.noOffset())
                    .take(9).runWith(Sink.seq(), system));
            expect("abcdefghi", words(tagged));
            List<EventEnvelope> rest = await(journal.currentEventsByTag(TAG, tagged.get(5).offset())
                    .runWith(Sink.seq(), system));
            expect("ghi", words(rest));
            expect("abcdefghi", words(all(system, journal.currentEventsByPersistenceId(ID, 0, Long.MAX_VALUE))));
            expect(List.of(ID).toString(), all(system, journal.currentPersistenceIds()).toString());
            expect("deleted", ask(ledger, "!delete"));
            System.out.println("events are found by tag, after an offset, and by persistence id");
        } finally {
            stop(system);
        }
    }

    private static void recoverAfterDeletion(Config config) throws Exception {
        ActorSystem system = ActorSystem.create("third", config);
        try {
            ActorRef ledger = system.actorOf(Props.create(Ledger.class, Ledger::new));
            expect("abcdefghi snapshot=5 replayed=4", ask(ledger, "!state"));
            CassandraReadJournal journal = PersistenceQuery.get(system)
                    .getReadJournalFor(CassandraReadJournal.class, CassandraReadJournal.Identifier());
            expect("fghi", words(all(system, journal.currentEventsByPersistenceId(ID, 0, Long.MAX_VALUE))));
            System.out.println("what was deleted before the snapshot is not missed");
        } finally {
            stop(system);
        }
    }

    /** A table that nothing was written to would have proven nothing. */
    private static void everyTableWasUsed(CqlSession session) {
        for (String table : List.of("dataflow_journal.messages", "dataflow_journal.tag_views",
                "dataflow_journal.tag_write_progress", "dataflow_journal.tag_scanning", "dataflow_journal.metadata",
                "dataflow_journal.all_persistence_ids", "dataflow_snapshot.snapshots")) {
            if (session.execute("SELECT * FROM " + table + " LIMIT 1").one() == null) {
                throw new AssertionError(table + " was not written to");
            }
        }
        System.out.println("every table was written to");
    }

    /**
     * Lets the plugin create its tables under other names, and compares columns and options. Of compaction only the
     * strategy: the plugin writes out every option of it, nearly all with the server's own default.
     */
    private static void sameAsThePluginsOwn(Config config, CqlSession session) throws Exception {
        StringBuilder settings = new StringBuilder();
        for (String kind : List.of("journal", "snapshot")) {
            settings.append("pekko.persistence.cassandra." + kind + " { keyspace = reference_" + kind
                    + ", keyspace-autocreate = on, tables-autocreate = on }\n");
        }
        ActorSystem system = ActorSystem.create("reference", ConfigFactory.parseString(settings.toString())
                .withFallback(config));
        try {
            ActorRef ledger = system.actorOf(Props.create(Ledger.class, Ledger::new));
            expect("stored", ask(ledger, "a"));
            expect("saved", ask(ledger, "!snapshot"));
        } finally {
            stop(system);
        }
        for (String kind : List.of("journal", "snapshot")) {
            TreeMap<String, String> expected = description(session, "reference_" + kind);
            TreeMap<String, String> found = description(session, "dataflow_" + kind);
            List<String> differences = new ArrayList<>();
            TreeSet<String> names = new TreeSet<>(expected.keySet());
            names.addAll(found.keySet());
            for (String name : names) {
                if (!String.valueOf(expected.get(name)).equals(found.get(name))) {
                    differences.add(name + ": the plugin has " + expected.get(name) + ", schema/pekko " + found.get(name));
                }
            }
            if (!differences.isEmpty() || expected.isEmpty()) {
                throw new AssertionError(String.join("\n", differences));
            }
        }
        System.out.println("columns and options are those that the plugin would have created");
    }

    private static TreeMap<String, String> description(CqlSession session, String keyspace) {
        TreeMap<String, String> all = new TreeMap<>();
        for (Row row : session.execute("SELECT table_name, column_name, type, kind, position, clustering_order"
                + " FROM system_schema.columns WHERE keyspace_name = ?", keyspace)) {
            all.put(row.getString("table_name") + "." + row.getString("column_name"), row.getString("type") + " "
                    + row.getString("kind") + " " + row.getInt("position") + " " + row.getString("clustering_order"));
        }
        for (Row row : session.execute("SELECT table_name, gc_grace_seconds, default_time_to_live, compaction"
                + " FROM system_schema.tables WHERE keyspace_name = ?", keyspace)) {
            all.put(row.getString("table_name"), "gc_grace_seconds=" + row.getInt("gc_grace_seconds")
                    + " default_time_to_live=" + row.getInt("default_time_to_live")
                    + " compaction=" + row.getMap("compaction", String.class, String.class).get("class"));
        }
        return all;
    }

    private static String lastHour() {
        return LocalDateTime.now(ZoneOffset.UTC).minusHours(1).format(DateTimeFormatter.ofPattern("yyyyMMdd'T'HH:00"));
    }

    private static <T> List<T> all(ActorSystem system, Source<T, ?> source) throws Exception {
        return await(source.runWith(Sink.seq(), system));
    }

    private static String words(List<EventEnvelope> events) {
        StringBuilder words = new StringBuilder();
        events.forEach(event -> words.append(event.event()));
        return words.toString();
    }

    private static Object ask(ActorRef actor, String message) throws Exception {
        return await(Patterns.ask(actor, message, Duration.ofSeconds(40)));
    }

    private static <T> T await(CompletionStage<T> stage) throws Exception {
        return stage.toCompletableFuture().get(60, TimeUnit.SECONDS);
    }

    private static void stop(ActorSystem system) throws Exception {
        system.terminate();
        await(system.getWhenTerminated());
    }

    private static void expect(Object expected, Object found) {
        if (!expected.equals(found)) {
            throw new AssertionError("expected " + expected + ", found " + found);
        }
    }
}
