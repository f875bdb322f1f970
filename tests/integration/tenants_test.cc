// Tenants, pins and watching, through the wire: what callers see, may do, and are told.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "client/error.h"
#include "tests/integration/daemon_process.h"
#include "tests/integration/demo_requests.h"

namespace lorad::integration {
namespace {

using testing::ElementsAre;
using testing::Not;

std::string ReasonOf(const absl::Status& status) {
  return status.ok() ? "OK" : GetErrorDetails(status).reason;
}

absl::StatusOr<v1::Adapter> Upload(Client* client, const std::string& name, const std::string& demo,
                                   const v1::AdapterSettings& settings = {}) {
  return client->UploadAdapter({.adapter_id = name,
                                .directory = DemoAdapterPath(demo),
                                .replace = true,
                                .settings = settings},
                               nullptr);
}

v1::AdapterSettings Pinned(bool pinned = true) {
  v1::AdapterSettings settings;
  settings.set_pinned(pinned);
  return settings;
}

class TenantsTest : public testing::Test {
 protected:
  void Start(std::vector<std::string> options = {}) {
    ASSERT_TRUE(daemon_.Start(options));
    operator_ = std::make_unique<Client>(ClientOptions{.address = daemon_.address()});
    acme_ = std::make_unique<Client>(ClientOptions{.address = daemon_.address(), .tenant = "acme"});
    other_ =
        std::make_unique<Client>(ClientOptions{.address = daemon_.address(), .tenant = "other"});
  }

  static v1::GenerateRequest Greedy(const std::string& adapter, const std::string& demo) {
    return GreedyRequest(adapter, LoadEval(demo, 1)[0].prompt);
  }
  // The adapter that a request of `client` runs on, or the error's reason.
  static std::string RunsOn(Client* client, const std::string& adapter) {
    const Answer answer = Ask(client, Greedy(adapter, "json"));
    return answer.status.ok()
               ? fmt::format("{}@{}", answer.finish.adapter(), answer.finish.adapter_version())
               : ReasonOf(answer.status);
  }
  static std::vector<std::string> Names(Client* client) {
    std::vector<std::string> names;
    const auto listed = client->ListAdapters();
    EXPECT_TRUE(listed.ok()) << listed.status();
    if (!listed.ok()) return names;
    for (const v1::Adapter& adapter : *listed) names.push_back(adapter.name());
    return names;
  }

  DaemonProcess daemon_;
  std::unique_ptr<Client> operator_, acme_, other_;
};

TEST_F(TenantsTest, EachUsesAndListsWhatItMaySee) {
  Start();
  ASSERT_TRUE(Upload(operator_.get(), "foo", "json").ok());
  const auto own = Upload(acme_.get(), "foo", "arith");
  ASSERT_TRUE(own.ok()) << own.status();
  EXPECT_EQ(own->name(), "adapters/acme/foo");
  EXPECT_EQ(own->tenant(), "acme");
  EXPECT_EQ(RunsOn(operator_.get(), "foo"), "adapters/foo@1");
  EXPECT_EQ(RunsOn(operator_.get(), "acme/foo"), "adapters/acme/foo@1");
  EXPECT_EQ(RunsOn(acme_.get(), "foo"), "adapters/acme/foo@1");
  EXPECT_EQ(RunsOn(other_.get(), "foo"), "adapters/foo@1");
  EXPECT_EQ(RunsOn(other_.get(), "acme/foo"), "ADAPTER_NOT_FOUND");
  EXPECT_EQ(RunsOn(other_.get(), "-"), "@0");
  EXPECT_EQ(RunsOn(other_.get(), ""), "@0");
  EXPECT_THAT(Names(operator_.get()), ElementsAre("adapters/acme/foo", "adapters/foo"));
  EXPECT_THAT(Names(acme_.get()), ElementsAre("adapters/acme/foo", "adapters/foo"));
  EXPECT_THAT(Names(other_.get()), ElementsAre("adapters/foo"));

  EXPECT_EQ(ReasonOf(other_->DeleteAdapter("foo", false)), "NOT_YOURS");
  EXPECT_EQ(ReasonOf(other_->DeleteAdapter("acme/foo", false)), "ADAPTER_NOT_FOUND");
  EXPECT_TRUE(other_->DeleteAdapter("acme/foo", true).ok());
  for (const char* id : {"acme/foo", "acme/absent"}) {
    const absl::Status refused = Upload(other_.get(), id, "json").status();
    EXPECT_TRUE(absl::IsPermissionDenied(refused)) << refused;
    EXPECT_EQ(ReasonOf(refused), "NOT_YOURS");
  }
  EXPECT_TRUE(acme_->DeleteAdapter("foo", false).ok());
  EXPECT_EQ(RunsOn(acme_.get(), "foo"), "adapters/foo@1");
}

TEST_F(TenantsTest, WhatSpeaksOfAllIsTheOperatorsAlone) {
  Start();
  for (const absl::Status& status :
       {acme_->GetPool(0).status(), acme_->ListTenants().status(), acme_->GetStats().status(),
        acme_->Drain(std::chrono::seconds(1)).status()}) {
    EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
    EXPECT_EQ(ReasonOf(status), "OPERATOR_ONLY");
  }
  EXPECT_TRUE(acme_->GetModel().ok());
  EXPECT_TRUE(acme_->GetFit({}).ok());
  EXPECT_TRUE(operator_->IsServing("").value_or(false)) << "the refused drain drained";
  Client wrong({.address = daemon_.address(), .tenant = "No Tenant"});
  for (const absl::Status& status :
       {wrong.GetModel().status(), wrong.GetStats().status(), wrong.ListAdapters().status(),
        wrong.GetAdapter("foo").status(), wrong.DeleteAdapter("foo", true),
        wrong.Tokenize({}).status(), Ask(&wrong, Greedy("", "json")).status,
        Upload(&wrong, "foo", "json").status(),
        wrong.WatchAdapters({}, [](const auto&) { return true; })}) {
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_EQ(ReasonOf(status), "INVALID_TENANT");
  }
}

TEST_F(TenantsTest, LimitsAndDefaultsAreThoseOfTheConfiguration) {
  Start({"--tenant", "acme,max-adapters=1,default-adapter=mine,weight=2.5", "--tenant-max-adapters",
         "2"});
  ASSERT_TRUE(Upload(acme_.get(), "mine", "json").ok());
  EXPECT_EQ(RunsOn(acme_.get(), ""), "adapters/acme/mine@1");
  EXPECT_EQ(RunsOn(acme_.get(), "-"), "@0");
  EXPECT_EQ(ReasonOf(Upload(acme_.get(), "more", "sort").status()), "TENANT_TOO_MANY_ADAPTERS");
  ASSERT_TRUE(Upload(other_.get(), "a", "json").ok());
  ASSERT_TRUE(Upload(other_.get(), "b", "sort").ok());
  EXPECT_EQ(ReasonOf(Upload(other_.get(), "c", "arith").status()), "TENANT_TOO_MANY_ADAPTERS");
  const auto tenants = operator_->ListTenants();
  ASSERT_TRUE(tenants.ok()) << tenants.status();
  ASSERT_EQ(tenants->size(), 2u);
  const v1::Tenant& acme = (*tenants)[0];
  EXPECT_EQ(acme.name(), "acme");
  EXPECT_EQ(acme.adapters(), 1);
  EXPECT_EQ(acme.max_adapters(), 1);
  EXPECT_EQ(acme.default_adapter(), "mine");
  EXPECT_EQ(acme.weight(), 2.5);
  EXPECT_EQ(acme.stored_bytes(), acme_->GetAdapter("mine")->size_bytes());
  EXPECT_EQ((*tenants)[1].name(), "other");
  EXPECT_EQ((*tenants)[1].adapters(), 2);
  EXPECT_EQ((*tenants)[1].max_adapters(), 2);
  EXPECT_EQ((*tenants)[1].max_stored_bytes(), 0);
  EXPECT_EQ((*tenants)[1].weight(), 1);
}

TEST_F(TenantsTest, APinnedAdapterIsLoadedAndStays) {
  Start({"--pool-bytes", "2560KiB", "--max-pinned-percent", "30"});
  const auto made = Upload(operator_.get(), "pinned", "json", Pinned());
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_TRUE(Eventually(
      [this] { return operator_->GetAdapter("pinned")->state() == v1::Adapter::RESIDENT; }));
  for (const std::string& demo : DemoAdapters()) {
    ASSERT_TRUE(Upload(operator_.get(), demo, demo).ok());
    EXPECT_EQ(RunsOn(operator_.get(), demo), fmt::format("adapters/{}@1", demo));
    EXPECT_EQ(operator_->GetAdapter("pinned")->state(), v1::Adapter::RESIDENT);
  }
  EXPECT_GT(operator_->GetStats()->adapter_evictions_total(), 0) << "nothing had to go";
  const auto pool = operator_->GetPool(0);
  ASSERT_TRUE(pool.ok());
  EXPECT_EQ(pool->adapter_pinned_pages(), made->image_pages());
  std::string refused = "OK";
  for (const std::string& demo : DemoAdapters()) {
    v1::UpdateAdapterRequest update;
    update.set_name(demo);
    *update.mutable_settings() = Pinned();
    const absl::Status status = operator_->UpdateAdapter(update).status();
    if (!status.ok()) refused = ReasonOf(status);
  }
  EXPECT_EQ(refused, "PINNED_TOO_MUCH");
  EXPECT_LE(operator_->GetPool(0)->adapter_pinned_pages(),
            operator_->GetModel()->limits().max_pinned_pages());
  // It is there again after a restart, without a request.
  EXPECT_EQ(daemon_.Terminate().code, 0);
  Start({"--pool-bytes", "2560KiB", "--max-pinned-percent", "30"});
  EXPECT_TRUE(Eventually(
      [this] { return operator_->GetAdapter("pinned")->state() == v1::Adapter::RESIDENT; }));
}

// ---- Watching ----

// A watch in a thread of its own; what it was told, as "CHANGED foo@2 RESIDENT".
class Watch {
 public:
  explicit Watch(Client* client, std::map<std::string, std::string> labels = {})
      : thread_([this, client, labels = std::move(labels)] {
          const absl::Status status = client->WatchAdapters(labels, [this](const auto& event) {
            const std::lock_guard lock(mutex_);
            events_.push_back(Text(event));
            changed_.notify_all();
            return !stop_;
          });
          const std::lock_guard lock(mutex_);
          end_ = status;
          changed_.notify_all();
        }) {}
  ~Watch() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    if (thread_.joinable()) thread_.join();
  }

  // Whether an event comes, or came, that begins so.
  bool Saw(const std::string& begin) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::minutes(1), [&] {
      return std::any_of(events_.begin(), events_.end(),
                         [&](const std::string& event) { return event.starts_with(begin); });
    });
  }
  std::vector<std::string> events() const {
    const std::lock_guard lock(mutex_);
    return events_;
  }
  absl::Status WaitForEnd() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::minutes(1), [&] { return end_.has_value(); });
    return end_.value_or(absl::UnknownError("the watch does not end"));
  }

 private:
  static std::string Text(const v1::WatchAdaptersResponse& event) {
    std::string text = v1::WatchAdaptersResponse::Type_Name(event.type());
    if (!event.adapter().name().empty()) text += " " + event.adapter().name();
    if (event.adapter().version() != 0) {
      text += fmt::format("@{} {}", event.adapter().version(),
                          v1::Adapter::State_Name(event.adapter().state()));
    }
    return text;
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> events_;
  bool stop_ = false;
  std::optional<absl::Status> end_;
  std::thread thread_;
};

TEST_F(TenantsTest, AWatcherSeesWhatHappensAndTheDrain) {
  Start();
  ASSERT_TRUE(Upload(operator_.get(), "foo", "json").ok());
  ASSERT_TRUE(Upload(acme_.get(), "own", "sort").ok());
  Watch watch(operator_.get()), acme(acme_.get()), other(other_.get());
  for (Watch* one : {&watch, &acme, &other}) EXPECT_TRUE(one->Saw("SYNCED"));
  EXPECT_THAT(watch.events(), ElementsAre("INITIAL adapters/acme/own@1 STORED",
                                          "INITIAL adapters/foo@1 STORED", "SYNCED"));
  EXPECT_THAT(acme.events(), ElementsAre("INITIAL adapters/acme/own@1 STORED",
                                         "INITIAL adapters/foo@1 STORED", "SYNCED"));
  EXPECT_THAT(other.events(), ElementsAre("INITIAL adapters/foo@1 STORED", "SYNCED"));
  EXPECT_EQ(RunsOn(operator_.get(), "foo"), "adapters/foo@1");
  EXPECT_TRUE(other.Saw("CHANGED adapters/foo@1 RESIDENT"));
  ASSERT_TRUE(Upload(operator_.get(), "foo", "arith").ok());
  EXPECT_TRUE(other.Saw("CHANGED adapters/foo@2"));
  ASSERT_TRUE(acme_->DeleteAdapter("own", false).ok());
  EXPECT_TRUE(acme.Saw("DELETED adapters/acme/own"));
  EXPECT_TRUE(watch.Saw("DELETED adapters/acme/own"));
  ASSERT_TRUE(operator_->DeleteAdapter("foo", false).ok());
  EXPECT_TRUE(other.Saw("DELETED adapters/foo"));
  EXPECT_THAT(other.events(), Not(testing::Contains(testing::HasSubstr("own"))));
  ASSERT_TRUE(operator_->Drain(std::chrono::minutes(1)).ok());
  for (Watch* one : {&watch, &acme, &other}) {
    const absl::Status end = one->WaitForEnd();
    EXPECT_TRUE(absl::IsUnavailable(end)) << end;
    EXPECT_EQ(ReasonOf(end), "SHUTTING_DOWN");
  }
  const absl::Status late = acme_->WatchAdapters({}, [](const auto&) { return true; });
  EXPECT_EQ(ReasonOf(late), "SHUTTING_DOWN") << late;
  EXPECT_EQ(daemon_.Terminate().code, 0);
}

TEST_F(TenantsTest, AWatchMayChooseByLabels) {
  Start();
  v1::AdapterSettings prod;
  (*prod.mutable_labels())["stage"] = "prod";
  ASSERT_TRUE(Upload(operator_.get(), "foo", "json", prod).ok());
  ASSERT_TRUE(Upload(operator_.get(), "bar", "sort").ok());
  Watch watch(operator_.get(), {{"stage", "prod"}});
  EXPECT_TRUE(watch.Saw("SYNCED"));
  v1::UpdateAdapterRequest update;
  update.set_name("foo");
  update.mutable_update_mask()->add_paths("labels");
  ASSERT_TRUE(operator_->UpdateAdapter(update).ok());
  EXPECT_TRUE(watch.Saw("DELETED adapters/foo"));
  update.set_name("bar");
  *update.mutable_settings() = prod;
  ASSERT_TRUE(operator_->UpdateAdapter(update).ok());
  EXPECT_TRUE(watch.Saw("CHANGED adapters/bar@1"));
  const auto listed = operator_->ListAdapters({.labels = {{"stage", "prod"}}});
  ASSERT_TRUE(listed.ok());
  ASSERT_EQ(listed->size(), 1u);
  EXPECT_EQ((*listed)[0].name(), "adapters/bar");
  update.mutable_update_mask()->add_paths("rank");
  EXPECT_EQ(GetErrorDetails(operator_->UpdateAdapter(update).status()).fields[0].field,
            "update_mask");
  EXPECT_TRUE(operator_->DeleteAdapter("bar", false).ok());
  EXPECT_TRUE(watch.Saw("DELETED adapters/bar"));
  daemon_.Terminate();
}

}  // namespace
}  // namespace lorad::integration
