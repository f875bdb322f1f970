// One WatchAdapters call: what its feed has to tell, a message at a time, for as long as the client
// listens.
#pragma once

#include <lorad/v1/adapters.grpc.pb.h>

#include "server/adapters_service.h"

namespace lorad {

// Deletes itself when the call is over. `parts` outlives it.
grpc::ServerWriteReactor<v1::WatchAdaptersResponse>* NewWatchCall(
    const AdaptersService::Parts& parts, grpc::CallbackServerContext* context,
    const v1::WatchAdaptersRequest* request);

}  // namespace lorad
