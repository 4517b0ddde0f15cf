//! Sends one log record, span and metric with OpenTelemetry's exporters, which are configured by OTEL_* variables.
use opentelemetry::logs::{LogRecord, Logger, LoggerProvider};
use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter};
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;

type Failure = Box<dyn std::error::Error>;

fn exporters() -> Result<(LogExporter, SpanExporter, MetricExporter), Failure> {
    Ok(match std::env::var("OTEL_EXPORTER_OTLP_PROTOCOL")?.as_str() {
        "grpc" => (
            LogExporter::builder().with_tonic().build()?,
            SpanExporter::builder().with_tonic().build()?,
            MetricExporter::builder().with_tonic().build()?,
        ),
        _ => (
            LogExporter::builder().with_http().build()?,
            SpanExporter::builder().with_http().build()?,
            MetricExporter::builder().with_http().build()?,
        ),
    })
}

fn main() -> Result<(), Failure> {
    let session = std::env::args().nth(1).ok_or("name a session")?;
    // gRPC's client needs a runtime; the batches are sent from threads of their own.
    let runtime = tokio::runtime::Runtime::new()?;
    let (logs, spans, metrics) = {
        let _guard = runtime.enter();
        exporters()?
    };

    let logger = SdkLoggerProvider::builder().with_batch_exporter(logs).build();
    let target = logger.logger("codex_otel.log_only");
    let mut record = target.create_log_record();
    record.add_attribute("event.name", "codex.sse_event");
    record.add_attribute("event.kind", "response.completed");
    record.add_attribute("conversation.id", session);
    record.add_attribute("model", "gpt-5.1-codex");
    record.add_attribute("input_token_count", 100);
    record.add_attribute("output_token_count", 20);
    record.add_attribute("cached_token_count", 30);
    target.emit(record);

    let tracer = SdkTracerProvider::builder().with_batch_exporter(spans).build();
    drop(tracer.tracer("conformance").start("span"));

    let meter = SdkMeterProvider::builder().with_periodic_exporter(metrics).build();
    meter.meter("conformance").u64_counter("count").build().add(1, &[]);

    logger.shutdown()?;
    tracer.shutdown()?;
    meter.shutdown()?;
    Ok(())
}
