import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.WindowStore;

/**
 * Sums the tokens of usage events by session and hour with Kafka Streams, exactly once, and publishes the sums.
 *
 * <p>Arguments: bootstrap servers, prefix of the topics, number of events, state directory. It neither recognises
 * copies nor prices requests: it does less than the worker with which it is compared. It prints the CPU seconds of the
 * process from the first event to the commit after the last one, and those of the second half.
 */
public final class HourlyUsage {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final Duration HOUR = Duration.ofHours(1);
  private static final Duration GRACE = Duration.ofDays(7);
  private static final long COMMIT_MS = 100; // the default with exactly_once_v2
  private static final int COUNTS = 6;

  private static final AtomicLong events = new AtomicLong();
  private static volatile double begun = -1;
  private static volatile double half = -1;
  private static volatile boolean done;

  public static void main(String[] arguments) throws Exception {
    String prefix = arguments[1];
    long wanted = Long.parseLong(arguments[2]);
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, prefix + ".streams");
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
    settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[3]);
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");

    Serde<JsonNode> json = Serdes.serdeFrom((topic, node) -> bytes(node), (topic, raw) -> parse(raw));
    Serde<long[]> sums = Serdes.serdeFrom((topic, counts) -> pack(counts), (topic, raw) -> unpack(raw));
    StreamsBuilder builder = new StreamsBuilder();
    builder.stream(prefix + ".usage", Consumed.with(Serdes.String(), json))
        .processValues(EventsOfMessage::new)
        .groupByKey(org.apache.kafka.streams.kstream.Grouped.with(Serdes.String(), json))
        .windowedBy(TimeWindows.ofSizeAndGrace(HOUR, GRACE))
        .aggregate(
            () -> new long[COUNTS],
            (session, event, counts) -> added(event, counts, wanted),
            Materialized.<String, long[], WindowStore<Bytes, byte[]>>as("hours")
                .withKeySerde(Serdes.String())
                .withValueSerde(sums)
                .withRetention(GRACE.plus(HOUR)))
        .toStream((window, counts) -> window.key() + "|" + window.window().start())
        .to(prefix + ".streams-hours", Produced.with(Serdes.String(), sums));

    KafkaStreams streams = new KafkaStreams(builder.build(), settings);
    streams.setUncaughtExceptionHandler(error -> {
      error.printStackTrace();
      Runtime.getRuntime().halt(1);
      return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
    });
    streams.start();
    while (!done) {
      Thread.sleep(5);
    }
    Thread.sleep(3 * COMMIT_MS);
    double end = cpuSeconds();
    System.out.printf("[%.2f, %.2f]%n", end - begun, end - half);
    System.out.flush();
    streams.close(Duration.ofSeconds(10));
    Runtime.getRuntime().halt(0);
  }

  /** Forwards each event of a message, at the time of the event. */
  private static final class EventsOfMessage implements FixedKeyProcessor<String, JsonNode, JsonNode> {
    private FixedKeyProcessorContext<String, JsonNode> context;

    @Override
    public void init(FixedKeyProcessorContext<String, JsonNode> given) {
      context = given;
    }

    @Override
    public void process(FixedKeyRecord<String, JsonNode> record) {
      for (JsonNode event : record.value().get("events")) {
        context.forward(record.withValue(event).withTimestamp(event.get("occurred_at").longValue() / 1_000_000));
      }
    }
  }

  private static long[] added(JsonNode event, long[] counts, long wanted) {
    if (begun < 0) {
      begun = cpuSeconds();
    }
    long[] next = counts.clone();
    next[0] += 1;
    next[1] += event.get("input_uncached").longValue();
    next[2] += event.get("cache_read").longValue();
    next[3] += event.get("cache_write_5m").longValue() + event.get("cache_write_1h").longValue();
    next[4] += event.get("output").longValue();
    next[5] += event.get("reasoning").longValue();
    long count = events.incrementAndGet();
    if (count == wanted / 2) {
      half = cpuSeconds();
    }
    done = count >= wanted;
    return next;
  }

  private static byte[] pack(long[] counts) {
    ByteBuffer buffer = ByteBuffer.allocate(8 * COUNTS);
    for (long count : counts) {
      buffer.putLong(count);
    }
    return buffer.array();
  }

  private static long[] unpack(byte[] raw) {
    if (raw == null) {
      return null;
    }
    ByteBuffer buffer = ByteBuffer.wrap(raw);
    long[] counts = new long[COUNTS];
    for (int index = 0; index < COUNTS; index++) {
      counts[index] = buffer.getLong();
    }
    return counts;
  }

  private static JsonNode parse(byte[] raw) {
    try {
      return raw == null ? null : JSON.readTree(raw);
    } catch (IOException broken) {
      throw new UncheckedIOException(broken);
    }
  }

  private static byte[] bytes(JsonNode node) {
    try {
      return JSON.writeValueAsBytes(node);
    } catch (IOException broken) {
      throw new UncheckedIOException(broken);
    }
  }

  /** CPU seconds of this process so far. */
  private static double cpuSeconds() {
    try {
      String line = Files.readString(Path.of("/proc/self/stat"));
      String[] fields = line.substring(line.lastIndexOf(')') + 2).split(" ");
      return (Long.parseLong(fields[11]) + Long.parseLong(fields[12])) / 100.0;
    } catch (IOException gone) {
      throw new UncheckedIOException(gone);
    }
  }
}
