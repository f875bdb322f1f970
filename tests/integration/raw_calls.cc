#include "tests/integration/raw_calls.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>

#include <chrono>

#include "client/grpc_call.h"

namespace lorad::integration {
namespace {

constexpr CallOptions kPatient{.timeout = std::chrono::minutes(1)};
constexpr char kReflection[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  return grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
}

}  // namespace

absl::StatusOr<v1::Adapter> UploadMessages(const std::string& address,
                                           const std::vector<v1::UploadAdapterRequest>& messages,
                                           UploadEnd end, const std::function<void()>& before_end,
                                           const std::function<void()>& after_message) {
  const auto stub = v1::Adapters::NewStub(Connect(address));
  grpc::ClientContext context;
  Prepare(kPatient, /*tenant=*/"", &context);
  v1::Adapter adapter;
  const auto writer = stub->UploadAdapter(&context, &adapter);
  for (const v1::UploadAdapterRequest& message : messages) {
    if (!writer->Write(message)) break;  // the status says why
    if (after_message) after_message();
  }
  if (before_end) before_end();
  if (end == UploadEnd::kCancel) {
    context.TryCancel();
  } else {
    writer->WritesDone();
  }
  const grpc::Status status = writer->Finish();
  if (!status.ok()) return FromGrpc(status);
  return adapter;
}

absl::StatusOr<std::string> ListServices(const std::string& address) {
  grpc::GenericStub stub(Connect(address));
  grpc::ClientContext context;
  Prepare(kPatient, /*tenant=*/"", &context);
  grpc::CompletionQueue queue;
  int tag = 0;
  const auto wait = [&queue] {
    void* got = nullptr;
    bool ok = false;
    return queue.Next(&got, &ok) && ok;
  };
  const auto call = stub.PrepareCall(&context, kReflection, &queue);
  call->StartCall(&tag);
  bool open = wait();
  const grpc::Slice slice(std::string("\x3a\x01*"));  // ServerReflectionRequest{list_services: "*"}
  grpc::ByteBuffer answer;
  if (open) {
    call->Write(grpc::ByteBuffer(&slice, 1), &tag);
    open = wait();
  }
  if (open) {
    call->Read(&answer, &tag);
    open = wait();
  }
  if (open) {
    call->WritesDone(&tag);
    wait();
  }
  grpc::Status status;
  call->Finish(&status, &tag);
  wait();
  if (!status.ok()) return FromGrpc(status);
  std::vector<grpc::Slice> slices;
  if (!answer.Dump(&slices).ok()) return absl::InternalError("no answer");
  std::string bytes;
  for (const grpc::Slice& part : slices) {
    bytes.append(reinterpret_cast<const char*>(part.begin()), part.size());
  }
  return bytes;
}

}  // namespace lorad::integration
