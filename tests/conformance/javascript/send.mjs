// Sends one log record, span and metric with OpenTelemetry's exporters, which are configured by OTEL_* variables.
import { resourceFromAttributes } from "@opentelemetry/resources";
import { LoggerProvider, SimpleLogRecordProcessor } from "@opentelemetry/sdk-logs";
import { MeterProvider, PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics";
import { TracerProvider, SimpleSpanProcessor } from "@opentelemetry/sdk-trace";

const kind = { "http/json": "http", "http/protobuf": "proto", grpc: "grpc" }[process.env.OTEL_EXPORTER_OTLP_PROTOCOL];
const { OTLPLogExporter } = await import(`@opentelemetry/exporter-logs-otlp-${kind}`);
const { OTLPTraceExporter } = await import(`@opentelemetry/exporter-trace-otlp-${kind}`);
const { OTLPMetricExporter } = await import(`@opentelemetry/exporter-metrics-otlp-${kind}`);

const resource = resourceFromAttributes({ "service.name": process.env.OTEL_SERVICE_NAME, team: "core" });
const delivered = [];
const noted = (exporter) => {
  const send = exporter.export.bind(exporter);
  exporter.export = (items, done) =>
    send(items, (result) => {
      delivered.push(result);
      done(result);
    });
  return exporter;
};

const logs = new LoggerProvider({
  resource,
  processors: [new SimpleLogRecordProcessor({ exporter: noted(new OTLPLogExporter()) })],
});
logs.getLogger("codex_otel.log_only").emit({
  attributes: {
    "event.name": "codex.sse_event",
    "event.kind": "response.completed",
    "conversation.id": process.argv[2],
    model: "gpt-5.1-codex",
    input_token_count: 100,
    output_token_count: 20,
    cached_token_count: 30,
  },
});
const traces = new TracerProvider({
  resource,
  spanProcessors: [new SimpleSpanProcessor({ exporter: noted(new OTLPTraceExporter()) })],
});
traces.getTracer("conformance").startSpan("span").end();
const reader = new PeriodicExportingMetricReader({ exporter: noted(new OTLPMetricExporter()) });
const metrics = new MeterProvider({ resource, readers: [reader] });
metrics.getMeter("conformance").createCounter("count").add(1);
for (const provider of [logs, traces, metrics]) {
  await provider.forceFlush();
  await provider.shutdown();
}
const failed = delivered.filter((result) => result.code !== 0);
if (delivered.length < 3 || failed.length) {
  console.error(delivered);
  process.exit(1);
}
