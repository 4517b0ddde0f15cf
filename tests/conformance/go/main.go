// Sends one log record, span and metric with OpenTelemetry's exporters, which are configured by OTEL_* variables.
package main

import (
	"context"
	"log"
	"os"

	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otellog "go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	ctx := context.Background()
	var logs sdklog.Exporter
	var spans trace.SpanExporter
	var metrics metric.Exporter
	if os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL") == "grpc" {
		logs = must(otlploggrpc.New(ctx))
		spans = must(otlptracegrpc.New(ctx))
		metrics = must(otlpmetricgrpc.New(ctx))
	} else {
		logs = must(otlploghttp.New(ctx))
		spans = must(otlptracehttp.New(ctx))
		metrics = must(otlpmetrichttp.New(ctx))
	}

	logger := sdklog.NewLoggerProvider(sdklog.WithProcessor(sdklog.NewSimpleProcessor(logs)))
	var record otellog.Record
	record.AddAttributes(
		otellog.String("event.name", "codex.sse_event"),
		otellog.String("event.kind", "response.completed"),
		otellog.String("conversation.id", os.Args[1]),
		otellog.String("model", "gpt-5.1-codex"),
		otellog.Int("input_token_count", 100),
		otellog.Int("output_token_count", 20),
		otellog.Int("cached_token_count", 30),
	)
	logger.Logger("codex_otel.log_only").Emit(ctx, record)

	tracer := trace.NewTracerProvider(trace.WithSyncer(spans))
	_, span := tracer.Tracer("conformance").Start(ctx, "span")
	span.End()

	meter := metric.NewMeterProvider(metric.WithReader(metric.NewPeriodicReader(metrics)))
	counter := must(meter.Meter("conformance").Int64Counter("count"))
	counter.Add(ctx, 1)

	for _, shutdown := range []func(context.Context) error{logger.Shutdown, tracer.Shutdown, meter.Shutdown} {
		if err := shutdown(ctx); err != nil {
			log.Fatal(err)
		}
	}
}
