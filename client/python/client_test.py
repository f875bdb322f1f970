"""LoradClient against a server in this process: python -m unittest client_test"""

import concurrent.futures
import os
import tempfile
import unittest
from pathlib import Path

import grpc
from google.protobuf import any_pb2, empty_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from lorad import LoradClient, LoradError
from lorad.v1 import (adapters_pb2, adapters_pb2_grpc, admin_pb2, admin_pb2_grpc, inference_pb2,
                      inference_pb2_grpc)

Event = adapters_pb2.WatchAdaptersResponse


class Seen:
    """What the server was asked last, by method, and for which tenant."""

    def __init__(self):
        self.requests = {}
        self.tenants = {}

    def take(self, method, request, context):
        self.requests[method] = request
        self.tenants[method] = dict(context.invocation_metadata()).get("x-lorad-tenant", "")


class FakeAdapters(adapters_pb2_grpc.AdaptersServicer):
    def __init__(self, seen):
        self.seen = seen

    def UploadAdapter(self, request_iterator, context):
        header = next(request_iterator).header  # and not the rest: it has these files
        self.seen.take("UploadAdapter", header, context)
        return adapters_pb2.Adapter(name="adapters/" + header.adapter_id)

    def CreateAdapter(self, request, context):
        self.seen.take("CreateAdapter", request, context)
        return adapters_pb2.Adapter()

    def UpdateAdapter(self, request, context):
        self.seen.take("UpdateAdapter", request, context)
        if request.etag == "stale":
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.ErrorInfo(reason="ETAG_MISMATCH", domain="lorad.dev"))
            status = status_pb2.Status(code=code_pb2.ABORTED, message="changed", details=[detail])
            context.set_trailing_metadata(
                (("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(grpc.StatusCode.ABORTED, "changed")
        return adapters_pb2.Adapter(name=request.name)

    def ListAdapters(self, request, context):
        self.seen.take("ListAdapters", request, context)
        if not request.page_token:
            return adapters_pb2.ListAdaptersResponse(
                adapters=[adapters_pb2.Adapter(name="adapters/a")], next_page_token="more")
        return adapters_pb2.ListAdaptersResponse(adapters=[adapters_pb2.Adapter(name="adapters/b")])

    def ListAdapterVersions(self, request, context):
        self.seen.take("ListAdapterVersions", request, context)
        return adapters_pb2.ListAdapterVersionsResponse(
            versions=[adapters_pb2.Adapter(version=2), adapters_pb2.Adapter(version=1)])

    def RollbackAdapter(self, request, context):
        self.seen.take("RollbackAdapter", request, context)
        return adapters_pb2.Adapter(version=3, origin_version=request.version)

    def DeleteAdapter(self, request, context):
        self.seen.take("DeleteAdapter", request, context)
        return empty_pb2.Empty()

    def WatchAdapters(self, request, context):
        self.seen.take("WatchAdapters", request, context)
        yield Event(type=Event.INITIAL, adapter=adapters_pb2.Adapter(name="adapters/a"))
        yield Event(type=Event.SYNCED)
        context.abort(grpc.StatusCode.UNAVAILABLE, "draining")


class FakeAdmin(admin_pb2_grpc.AdminServicer):
    def __init__(self, seen):
        self.seen = seen

    def GetFit(self, request, context):
        self.seen.take("GetFit", request, context)
        return admin_pb2.Fit(adapters_in_pool=request.rank)

    def ListTenants(self, request, context):
        self.seen.take("ListTenants", request, context)
        return admin_pb2.ListTenantsResponse(tenants=[admin_pb2.Tenant(name="acme")])


class FakeInference(inference_pb2_grpc.InferenceServicer):
    def __init__(self, seen):
        self.seen = seen

    def Generate(self, request, context):
        self.seen.take("Generate", request, context)
        yield inference_pb2.GenerateResponse(text="one", token_ids=[1])
        yield inference_pb2.GenerateResponse(text=" two", token_ids=[2])
        yield inference_pb2.GenerateResponse(
            finish=inference_pb2.GenerateFinish(usage=inference_pb2.Usage(cached_tokens=5)))

    def Score(self, request, context):
        self.seen.take("Score", request, context)
        return inference_pb2.ScoreResponse()


class ClientTest(unittest.TestCase):
    def setUp(self):
        self.seen = Seen()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        adapters_pb2_grpc.add_AdaptersServicer_to_server(FakeAdapters(self.seen), self.server)
        admin_pb2_grpc.add_AdminServicer_to_server(FakeAdmin(self.seen), self.server)
        inference_pb2_grpc.add_InferenceServicer_to_server(FakeInference(self.seen), self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()
        self.client = LoradClient(self.address, tenant="acme")

    def tearDown(self):
        self.client.close()
        self.server.stop(None)

    def test_every_call_speaks_for_the_tenant(self):
        self.client.generate("x")
        self.client.score("x", cache_salt="pepper", priority="batch")
        self.client.create_adapter("x", "/x")
        self.client.update_adapter("x", pinned=True)
        list(self.client.list_adapters())
        self.client.adapter_versions("x")
        self.client.rollback_adapter("x")
        self.client.delete_adapter("x")
        with self.assertRaises(LoradError):
            list(self.client.watch_adapters())
        self.client.fit()
        self.client.tenants()
        self.assertEqual(len(self.seen.tenants), 11)
        self.assertEqual(set(self.seen.tenants.values()), {"acme"})
        self.assertEqual(self.seen.requests["Score"].cache_salt, "pepper")
        self.assertEqual(self.seen.requests["Score"].priority, 3)
        os.environ["LORAD_TENANT"] = "umbrella"
        try:
            with LoradClient(self.address) as client:
                client.tenants()
            self.assertEqual(self.seen.tenants["ListTenants"], "umbrella")
            with LoradClient(self.address, tenant="") as client:
                client.tenants()
            self.assertEqual(self.seen.tenants["ListTenants"], "")
        finally:
            del os.environ["LORAD_TENANT"]

    def test_generate(self):
        answer = self.client.generate("x", "pirate@3", cache_salt="pepper", max_tokens=4,
                                      priority="interactive")
        self.assertEqual(answer.text, "one two")
        self.assertEqual(answer.finish.usage.cached_tokens, 5)
        self.assertEqual(self.seen.requests["Generate"].cache_salt, "pepper")
        self.assertEqual(self.seen.requests["Generate"].priority, 1)
        with self.assertRaises(ValueError):
            self.client.generate("x", priority="urgent")

    def test_upload_ends_well_when_the_server_answers_early(self):
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "adapter_config.json").write_text('{"r": 8}')
            (Path(directory) / "adapter_model.safetensors").write_bytes(b"x" * (20 << 20))
            adapter = self.client.upload_adapter(directory, "pirate", etag="e1",
                                                 settings={"labels": {"team": "sea"}})
            self.assertEqual(adapter.name, "adapters/pirate")
            header = self.seen.requests["UploadAdapter"]
            self.assertEqual(header.etag, "e1")
            self.assertEqual(dict(header.settings.labels), {"team": "sea"})
            self.assertEqual(header.files[0].sha256,
                             "fd66c57ec3933dd396b22ffd2c904bdbe96a4477c250382ee6265e2d7921fdd8")
            self.client.upload_adapter(directory, "pirate")
            self.assertFalse(self.seen.requests["UploadAdapter"].HasField("settings"))

    def test_update_sets_what_is_given(self):
        self.client.update_adapter("x", description="", aliases=["a"])
        request = self.seen.requests["UpdateAdapter"]
        self.assertEqual(sorted(request.update_mask.paths), ["aliases", "description"])
        self.assertEqual(list(request.settings.aliases), ["a"])
        with self.assertRaises(ValueError):
            self.client.update_adapter("x")
        with self.assertRaises(LoradError) as caught:
            self.client.update_adapter("x", pinned=True, etag="stale")
        self.assertEqual(caught.exception.reason, "ETAG_MISMATCH")

    def test_lists(self):
        names = [adapter.name for adapter in self.client.list_adapters(labels={"team": "sea"})]
        self.assertEqual(names, ["adapters/a", "adapters/b"])
        self.assertEqual(dict(self.seen.requests["ListAdapters"].labels), {"team": "sea"})
        self.assertEqual([v.version for v in self.client.adapter_versions("x")], [2, 1])
        self.assertEqual(self.client.rollback_adapter("x", version=1).origin_version, 1)
        self.assertEqual([tenant.name for tenant in self.client.tenants()], ["acme"])
        self.assertEqual(self.client.fit(rank=16, target_modules=["q_proj"]).adapters_in_pool, 16)
        self.assertEqual(list(self.seen.requests["GetFit"].target_modules), ["q_proj"])

    def test_watch(self):
        types = []
        with self.assertRaises(LoradError) as caught:
            for event in self.client.watch_adapters({"team": "sea"}):
                types.append(event.type)
        self.assertEqual(types, [Event.INITIAL, Event.SYNCED])
        self.assertEqual(caught.exception.code, grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(dict(self.seen.requests["WatchAdapters"].labels), {"team": "sea"})
        for event in self.client.watch_adapters():
            break  # ends it


if __name__ == "__main__":
    unittest.main()
