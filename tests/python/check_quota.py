"""Checks a quota without generated code: what the messages look like is asked by reflection.

    check_quota.py ADDRESS TOKEN_FILE ACCOUNT METRIC AMOUNT REQUEST_ID

Prints the decision as JSON. It needs grpcio and grpcio-reflection (deploy/tools/test.txt).
"""

import pathlib
import sys

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "octroi.quota.v1.QuotaService"
METHOD = "CheckQuota"
DEADLINE_S = 20


def main() -> None:
    address, token_file, account, metric, amount, request_id = sys.argv[1:]
    token = pathlib.Path(token_file).read_text(encoding="ascii").strip()
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        if SERVICE not in database.get_services():
            sys.exit(f"{address} does not serve {SERVICE}")
        method = DescriptorPool(database).FindServiceByName(SERVICE).FindMethodByName(METHOD)
        request = message_factory.GetMessageClass(method.input_type)(
            account_id=account,
            items=[{"metric": metric, "amount": int(amount)}],
            mode="CHECK_MODE_CONSUME",
            request_id=request_id,
        )
        answer = channel.unary_unary(
            f"/{SERVICE}/{METHOD}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        metadata = [("authorization", f"Bearer {token}")]
        decision = answer(request, timeout=DEADLINE_S, metadata=metadata)
        print(json_format.MessageToJson(decision, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))


if __name__ == "__main__":
    main()
