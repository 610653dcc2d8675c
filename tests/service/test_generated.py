"""The generated stubs are those of protos/, and nobody has edited them."""

from pathlib import Path

from google.protobuf.descriptor import FieldDescriptor as Field

from scaler._generated import externalscaler_pb2 as pb
from scaler._generated.generate import ROOT, generate

GENERATED = sorted((ROOT / "scaler/_generated").glob("externalscaler_*"))

# Message, field, number, type, repeated: KEDA's pkg/scalers/externalscaler/externalscaler.proto.
FIELDS = {
    ("ScaledObjectRef", "name", 1, Field.TYPE_STRING, False),
    ("ScaledObjectRef", "namespace", 2, Field.TYPE_STRING, False),
    ("ScaledObjectRef", "scalerMetadata", 3, Field.TYPE_MESSAGE, True),
    ("IsActiveResponse", "result", 1, Field.TYPE_BOOL, False),
    ("GetMetricSpecResponse", "metricSpecs", 1, Field.TYPE_MESSAGE, True),
    ("MetricSpec", "metricName", 1, Field.TYPE_STRING, False),
    ("MetricSpec", "targetSize", 2, Field.TYPE_INT64, False),
    ("MetricSpec", "targetSizeFloat", 3, Field.TYPE_DOUBLE, False),
    ("GetMetricsRequest", "scaledObjectRef", 1, Field.TYPE_MESSAGE, False),
    ("GetMetricsRequest", "metricName", 2, Field.TYPE_STRING, False),
    ("GetMetricsResponse", "metricValues", 1, Field.TYPE_MESSAGE, True),
    ("MetricValue", "metricName", 1, Field.TYPE_STRING, False),
    ("MetricValue", "metricValue", 2, Field.TYPE_INT64, False),
    ("MetricValue", "metricValueFloat", 3, Field.TYPE_DOUBLE, False),
}
# Method, request, response, server stream.
METHODS = {
    ("IsActive", "ScaledObjectRef", "IsActiveResponse", False),
    ("StreamIsActive", "ScaledObjectRef", "IsActiveResponse", True),
    ("GetMetricSpec", "ScaledObjectRef", "GetMetricSpecResponse", False),
    ("GetMetrics", "GetMetricsRequest", "GetMetricsResponse", False),
    ("StreamMetricSpec", "ScaledObjectRef", "GetMetricSpecResponse", True),
}


def test_regenerating_leaves_no_difference(tmp_path: Path) -> None:
    generate(tmp_path)
    made = sorted((tmp_path / "scaler/_generated").iterdir())
    assert [path.name for path in made] == [path.name for path in GENERATED]
    assert len(made) == 3
    for new, kept in zip(made, GENERATED, strict=True):
        assert new.read_text() == kept.read_text(), kept.name


def test_the_contract_is_kedas() -> None:
    messages = pb.DESCRIPTOR.message_types_by_name
    fields = {
        (message, field.name, field.number, field.type, field.is_repeated)
        for message, descriptor in messages.items()
        for field in descriptor.fields
    }
    assert fields == FIELDS
    entry = messages["ScaledObjectRef"].fields_by_name["scalerMetadata"].message_type
    assert entry is not None
    assert [(field.number, field.type) for field in entry.fields] == [
        (1, Field.TYPE_STRING),
        (2, Field.TYPE_STRING),
    ]
    service = pb.DESCRIPTOR.services_by_name["ExternalScaler"]
    assert service.full_name == "externalscaler.ExternalScaler"
    methods = {
        (method.name, method.input_type.name, method.output_type.name, method.server_streaming)
        for method in service.methods
    }
    assert methods == METHODS
