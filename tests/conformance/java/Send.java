import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.autoconfigure.AutoConfiguredOpenTelemetrySdk;
import io.opentelemetry.sdk.common.CompletableResultCode;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** Sends one log record, span and metric with OpenTelemetry's exporters, which are configured by OTEL_* variables. */
public final class Send {
  public static void main(String[] args) {
    OpenTelemetrySdk sdk = AutoConfiguredOpenTelemetrySdk.builder().disableShutdownHook().build().getOpenTelemetrySdk();
    sdk.getSdkLoggerProvider().get("codex_otel.log_only").logRecordBuilder()
        .setAttribute(AttributeKey.stringKey("event.name"), "codex.sse_event")
        .setAttribute(AttributeKey.stringKey("event.kind"), "response.completed")
        .setAttribute(AttributeKey.stringKey("conversation.id"), args[0])
        .setAttribute(AttributeKey.stringKey("model"), "gpt-5.1-codex")
        .setAttribute(AttributeKey.longKey("input_token_count"), 100L)
        .setAttribute(AttributeKey.longKey("output_token_count"), 20L)
        .setAttribute(AttributeKey.longKey("cached_token_count"), 30L)
        .emit();
    sdk.getTracer("conformance").spanBuilder("span").startSpan().end();
    sdk.getMeter("conformance").counterBuilder("count").build().add(1);
    List<CompletableResultCode> results =
        List.of(
            sdk.getSdkLoggerProvider().forceFlush(),
            sdk.getSdkTracerProvider().forceFlush(),
            sdk.getSdkMeterProvider().forceFlush());
    for (CompletableResultCode result : results) {
      if (!result.join(30, TimeUnit.SECONDS).isSuccess()) {
        System.exit(1);
      }
    }
  }
}
