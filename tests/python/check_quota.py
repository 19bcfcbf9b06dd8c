"""Checks a quota without generated code: what the messages look like is asked by reflection.

    check_quota.py --address ADDRESS --token-file FILE --account ACCOUNT --metric METRIC [--amount UNITS]
                   [--request-id ID]

Takes what it asks for and prints the decision as JSON. It needs grpcio and grpcio-reflection
(deploy/tools/test.txt).
"""

import argparse
import pathlib
import sys
import uuid

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "octroi.quota.v1.QuotaService"
METHOD = "CheckQuota"
DEADLINE_S = 20


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Asks whether an account may do this now, and takes it.")
    parser.add_argument("--address", required=True, help="where the quota service is, such as 127.0.0.1:8081")
    parser.add_argument("--token-file", required=True, type=pathlib.Path, help="the caller's token")
    parser.add_argument("--account", required=True)
    parser.add_argument("--metric", required=True)
    parser.add_argument("--amount", type=int, default=1, help="how many units (default: 1)")
    parser.add_argument(
        "--request-id",
        default=f"python-{uuid.uuid4()}",
        help="the same id again is the same request, and takes nothing twice (default: a new one)",
    )
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    token = arguments.token_file.read_text(encoding="ascii").strip()
    with grpc.insecure_channel(arguments.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        if SERVICE not in database.get_services():
            sys.exit(f"{arguments.address} does not serve {SERVICE}")
        method = DescriptorPool(database).FindServiceByName(SERVICE).FindMethodByName(METHOD)
        request = message_factory.GetMessageClass(method.input_type)(
            account_id=arguments.account,
            items=[{"metric": arguments.metric, "amount": arguments.amount}],
            mode="CHECK_MODE_CONSUME",
            request_id=arguments.request_id,
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
