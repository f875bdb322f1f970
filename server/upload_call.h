// One UploadAdapter call: a header, then the bytes of the files, staged as they come and committed
// at the end of the stream. Files that the adapter has already are not asked for.
#pragma once

#include <lorad/v1/adapters.grpc.pb.h>

#include "server/adapters_service.h"

namespace lorad {

// Deletes itself when the call is over. `parts` outlives it.
grpc::ServerReadReactor<v1::UploadAdapterRequest>* NewUploadCall(
    const AdaptersService::Parts& parts, grpc::CallbackServerContext* context,
    v1::Adapter* response);

}  // namespace lorad
