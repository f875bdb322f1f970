"""LoradClient: generation, scoring and adapters of one server.

Messages are those of proto/lorad/v1, where every field is described. Errors are LoradError.
A client may be used by many threads at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Iterable, Iterator, Mapping, Optional, Sequence, Union

import grpc
from google.rpc import error_details_pb2, status_pb2

from lorad.v1 import (adapters_pb2, adapters_pb2_grpc, admin_pb2, admin_pb2_grpc, inference_pb2,
                      inference_pb2_grpc)

DEFAULT_ADDRESS = "127.0.0.1:7433"
_CHUNK_BYTES = 1 << 20  # the protocol's limit
_FILES = ("adapter_config.json", "adapter_model.safetensors")
_SAMPLING = ("repetition_penalty", "presence_penalty", "frequency_penalty", "temperature", "top_k",
             "top_p", "min_p", "seed")

Prompt = Union[str, Sequence[int]]
# An adapters_pb2.AdapterSettings, or its fields: {"labels": {"team": "sea"}, "pinned": True}.
Settings = Union[adapters_pb2.AdapterSettings, Mapping]


class LoradError(Exception):
    """A refused or failed call.

    code: grpc.StatusCode. reason: stable, UPPER_SNAKE_CASE, or "". fields: the request's offending
    fields by path. retry_after_s: when to try again, or None.
    """

    def __init__(self, code: grpc.StatusCode, message: str, reason: str = "",
                 fields: Sequence[str] = (), retry_after_s: Optional[float] = None):
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.reason = reason
        self.fields = list(fields)
        self.retry_after_s = retry_after_s


@dataclasses.dataclass
class Generation:
    """A whole answer."""

    text: str
    token_ids: list
    logprobs: list  # inference_pb2.TokenLogprobs, one a token, if asked for
    finish: inference_pb2.GenerateFinish


def _error(error: grpc.RpcError) -> LoradError:
    reason, fields, retry_after_s = "", [], None
    trailers = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    for key, value in trailers or ():
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info = error_details_pb2.ErrorInfo()
            bad = error_details_pb2.BadRequest()
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(bad):
                fields += [violation.field for violation in bad.field_violations]
            elif detail.Unpack(retry):
                retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos * 1e-9
    return LoradError(error.code(), error.details() or "", reason, fields, retry_after_s)


def _input(prompt: Prompt, add_special_tokens: Optional[bool] = None) -> inference_pb2.Input:
    if isinstance(prompt, str):
        return inference_pb2.Input(text=prompt, add_special_tokens=add_special_tokens)
    return inference_pb2.Input(token_ids=inference_pb2.TokenIds(ids=prompt))


def _settings(settings: Optional[Settings]) -> Optional[adapters_pb2.AdapterSettings]:
    if settings is None or isinstance(settings, adapters_pb2.AdapterSettings):
        return settings
    return adapters_pb2.AdapterSettings(**settings)


def _priority(name: Optional[str]) -> int:
    return inference_pb2.Priority.Value(f"PRIORITY_{(name or 'unspecified').upper()}")


def _generate_request(prompt, adapter, stop, logit_bias, add_special_tokens, options):
    sampling = {name: options.pop(name) for name in _SAMPLING if options.get(name) is not None}
    bias = [inference_pb2.LogitBias(token_id=t, bias=b) for t, b in (logit_bias or {}).items()]
    return inference_pb2.GenerateRequest(
        adapter=adapter,
        prompt=_input(prompt, add_special_tokens),
        sampling=inference_pb2.SamplingParams(logit_bias=bias, **sampling),
        stop=[stop] if isinstance(stop, str) else stop,
        priority=_priority(options.pop("priority", None)),
        **{name: value for name, value in options.items() if value is not None})


class LoradClient:
    """A connection to one server. Also a context manager.

    timeout arguments are seconds; None is no limit. etag arguments guard a change: if the adapter's
    etag is another one, nothing is done and the error's reason is ETAG_MISMATCH; "" is any.
    """

    def __init__(self, address: Optional[str] = None, tenant: Optional[str] = None):
        """address: host:port; default LORAD_ADDRESS, else 127.0.0.1:7433.

        tenant: for whom every call speaks; default LORAD_TENANT, else the operator.
        """
        address = address or os.environ.get("LORAD_ADDRESS", DEFAULT_ADDRESS)
        if tenant is None:
            tenant = os.environ.get("LORAD_TENANT", "")
        self._metadata = (("x-lorad-tenant", tenant),) if tenant else ()
        self._channel = grpc.insecure_channel(
            address, options=[("grpc.max_receive_message_length", 16 << 20)])
        self._inference = inference_pb2_grpc.InferenceStub(self._channel)
        self._adapters = adapters_pb2_grpc.AdaptersStub(self._channel)
        self._admin = admin_pb2_grpc.AdminStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> LoradClient:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    # Inference.

    def stream(self, prompt: Prompt, adapter: str = "", *, stop: Union[str, Sequence[str]] = (),
               logit_bias: Optional[dict] = None, add_special_tokens: Optional[bool] = None,
               timeout: Optional[float] = None,
               **options) -> Iterator[inference_pb2.GenerateResponse]:
        """Yields messages as they come; the last one has `finish`. Leaving the loop early cancels.

        prompt: text or token ids. adapter: "" is the tenant's default adapter or the base model,
        "-" the base model. options: max_tokens, min_tokens, stop_token_ids, ignore_eos, logprobs,
        include_prompt, request_id, cache_salt, priority ("interactive", "standard", "batch"), and
        the sampling parameters temperature, top_k, top_p, min_p, seed, repetition_penalty,
        presence_penalty, frequency_penalty.
        """
        request = _generate_request(prompt, adapter, stop, logit_bias, add_special_tokens, options)
        yield from self._stream(self._inference.Generate, request, timeout)

    def generate(self, prompt: Prompt, adapter: str = "", **options) -> Generation:
        """The whole answer at once; arguments as for stream()."""
        answer = Generation("", [], [], inference_pb2.GenerateFinish())
        for message in self.stream(prompt, adapter, **options):
            answer.text += message.text
            answer.token_ids.extend(message.token_ids)
            answer.logprobs.extend(message.logprobs)
            if message.HasField("finish"):
                answer.finish = message.finish
        return answer

    def score(self, continuation: Prompt, context: Prompt = "", adapter: str = "",
              top_logprobs: int = 0, cache_salt: str = "", priority: Optional[str] = None,
              timeout: Optional[float] = None) -> inference_pb2.ScoreResponse:
        """Log-probabilities of `continuation` after `context`."""
        request = inference_pb2.ScoreRequest(adapter=adapter, continuation=_input(continuation),
                                             top_logprobs=top_logprobs, cache_salt=cache_salt,
                                             priority=_priority(priority))
        if len(context) > 0:
            request.context.CopyFrom(_input(context))
        return self._call(self._inference.Score, request, timeout)

    def tokenize(self, text: str, add_special_tokens: bool = True) -> list:
        """The token ids of a text."""
        request = inference_pb2.TokenizeRequest(text=text, add_special_tokens=add_special_tokens)
        return list(self._call(self._inference.Tokenize, request).token_ids)

    def detokenize(self, token_ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids."""
        request = inference_pb2.DetokenizeRequest(token_ids=token_ids,
                                                  skip_special_tokens=skip_special_tokens)
        return self._call(self._inference.Detokenize, request).text

    # Adapters.

    def upload_adapter(self, directory: Union[str, Path], adapter_id: Optional[str] = None,
                       replace: bool = False, preload: bool = False,
                       settings: Optional[Settings] = None, etag: str = "",
                       timeout: Optional[float] = None) -> adapters_pb2.Adapter:
        """Sends a PEFT directory; not its bytes if the adapter has the very same files.

        adapter_id: default the directory's name. settings: all that it will have; None: those that
        it has.
        """
        directory = Path(directory)
        header = adapters_pb2.UploadHeader(adapter_id=adapter_id or directory.resolve().name,
                                           replace=replace, preload=preload, etag=etag,
                                           settings=_settings(settings))
        for name in _FILES:
            sha256, size = hashlib.sha256(), 0
            with open(directory / name, "rb") as file:
                while data := file.read(_CHUNK_BYTES):
                    sha256.update(data)
                    size += len(data)
            header.files.add(name=name, size_bytes=size, sha256=sha256.hexdigest())

        def messages():
            yield adapters_pb2.UploadAdapterRequest(header=header)
            for index, name in enumerate(_FILES):
                offset = 0
                with open(directory / name, "rb") as file:
                    while data := file.read(_CHUNK_BYTES):
                        chunk = adapters_pb2.UploadChunk(file_index=index, offset=offset, data=data)
                        yield adapters_pb2.UploadAdapterRequest(chunk=chunk)
                        offset += len(data)

        return self._call(self._adapters.UploadAdapter, messages(), timeout)

    def create_adapter(self, adapter_id: str, path: str, replace: bool = False,
                       preload: bool = False, settings: Optional[Settings] = None,
                       etag: str = "") -> adapters_pb2.Adapter:
        """Takes a PEFT directory that lies on the server; arguments as for upload_adapter()."""
        request = adapters_pb2.CreateAdapterRequest(adapter_id=adapter_id, path=path,
                                                    replace=replace, preload=preload, etag=etag,
                                                    settings=_settings(settings))
        return self._call(self._adapters.CreateAdapter, request)

    def get_adapter(self, name: str) -> adapters_pb2.Adapter:
        """One adapter; "foo@3" is version 3."""
        return self._call(self._adapters.GetAdapter, adapters_pb2.GetAdapterRequest(name=name))

    def list_adapters(self, labels: Optional[Mapping[str, str]] = None
                      ) -> Iterator[adapters_pb2.Adapter]:
        """All adapters that have all of `labels`; fetches page after page."""
        request = adapters_pb2.ListAdaptersRequest(page_size=1000, labels=labels)
        while True:
            page = self._call(self._adapters.ListAdapters, request)
            yield from page.adapters
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def update_adapter(self, name: str, *, labels: Optional[Mapping[str, str]] = None,
                       description: Optional[str] = None, pinned: Optional[bool] = None,
                       aliases: Optional[Sequence[str]] = None,
                       etag: str = "") -> adapters_pb2.Adapter:
        """Sets what is not None and leaves the rest; makes no new version.

        labels and aliases are all that it will have. To change some of them, read the adapter,
        give its etag, and do it again if the error's reason is ETAG_MISMATCH.
        """
        given = {"labels": labels, "description": description, "pinned": pinned,
                 "aliases": aliases}
        given = {key: value for key, value in given.items() if value is not None}
        if not given:
            raise ValueError("nothing to change")
        request = adapters_pb2.UpdateAdapterRequest(name=name, etag=etag, settings=_settings(given))
        request.update_mask.paths.extend(given)
        return self._call(self._adapters.UpdateAdapter, request)

    def adapter_versions(self, name: str) -> list:
        """The versions that are kept, newest first; the first is current."""
        request = adapters_pb2.ListAdapterVersionsRequest(name=name)
        return list(self._call(self._adapters.ListAdapterVersions, request).versions)

    def rollback_adapter(self, name: str, version: int = 0,
                         etag: str = "") -> adapters_pb2.Adapter:
        """Makes a kept version current again, as a new one. version: default the newest kept."""
        request = adapters_pb2.RollbackAdapterRequest(name=name, version=version, etag=etag)
        return self._call(self._adapters.RollbackAdapter, request)

    def delete_adapter(self, name: str, allow_missing: bool = False, etag: str = "") -> None:
        """Deletes an adapter with all its versions."""
        request = adapters_pb2.DeleteAdapterRequest(name=name, allow_missing=allow_missing,
                                                    etag=etag)
        self._call(self._adapters.DeleteAdapter, request)

    def watch_adapters(self, labels: Optional[Mapping[str, str]] = None,
                       timeout: Optional[float] = None
                       ) -> Iterator[adapters_pb2.WatchAdaptersResponse]:
        """Yields all adapters (INITIAL), one SYNCED, then changes as they happen.

        Leaving the loop ends the watch. When the server drains it ends with UNAVAILABLE.
        """
        request = adapters_pb2.WatchAdaptersRequest(labels=labels)
        yield from self._stream(self._adapters.WatchAdapters, request, timeout)

    # Administration.

    def model(self) -> admin_pb2.Model:
        return self._call(self._admin.GetModel, admin_pb2.GetModelRequest())

    def pool(self, max_adapters: int = 0) -> admin_pb2.Pool:
        return self._call(self._admin.GetPool, admin_pb2.GetPoolRequest(max_adapters=max_adapters))

    def fit(self, rank: int = 0, target_modules: Sequence[str] = (),
            sequence_tokens: int = 0) -> admin_pb2.Fit:
        """How many more such adapters and sequences the pool takes.

        rank: 0 asks about sequences only. target_modules: default all that adapters may change.
        sequence_tokens: default the longest sequence.
        """
        request = admin_pb2.GetFitRequest(rank=rank, target_modules=target_modules,
                                          sequence_tokens=sequence_tokens)
        return self._call(self._admin.GetFit, request)

    def tenants(self) -> list:
        """The tenants, by name, with what they use and may use."""
        return list(self._call(self._admin.ListTenants, admin_pb2.ListTenantsRequest()).tenants)

    def stats(self) -> admin_pb2.Stats:
        return self._call(self._admin.GetStats, admin_pb2.GetStatsRequest())

    def _call(self, method, request, timeout: Optional[float] = None):
        try:
            return method(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _error(error) from None

    def _stream(self, method, request, timeout: Optional[float]):
        call = method(request, timeout=timeout, metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise _error(error) from None
        finally:
            call.cancel()
