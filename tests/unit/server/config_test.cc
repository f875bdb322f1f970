#include "server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "server/log.h"

namespace lorad {
namespace {

using ::testing::HasSubstr;

std::variant<Config, ExitNow> Parse(std::vector<std::string> args) {
  std::vector<const char*> argv = {"lorad"};
  for (const std::string& arg : args) argv.push_back(arg.c_str());
  return ParseCommandLine(static_cast<int>(argv.size()), argv.data());
}

TEST(ConfigTest, CommandLine) {
  const auto parsed = Parse({"--model", "/tmp", "--pool-bytes", "8MiB", "--adapter", "a=/x/y",
                             "--adapter", "b=/z", "--max-running", "3"});
  ASSERT_TRUE(std::holds_alternative<Config>(parsed)) << std::get<ExitNow>(parsed).text;
  const Config& config = std::get<Config>(parsed);
  EXPECT_EQ(config.pool_bytes, 8u << 20);
  EXPECT_EQ(config.max_running, 3);
  const std::vector<std::pair<std::string, std::string>> expected = {{"a", "/x/y"}, {"b", "/z"}};
  EXPECT_EQ(config.AdapterList(), expected);
}

TEST(ConfigTest, Admission) {
  const auto mode = [](std::vector<std::string> more) {
    std::vector<std::string> args{"--model", "/tmp"};
    args.insert(args.end(), more.begin(), more.end());
    return std::get<Config>(Parse(args)).Admission();
  };
  EXPECT_EQ(mode({}), AdmissionMode::kNoEvict);
  EXPECT_EQ(mode({"--admission", "optimistic"}), AdmissionMode::kOptimistic);
  EXPECT_EQ(mode({"--admission", "prompt-only"}), AdmissionMode::kPromptOnly);
  EXPECT_TRUE(
      std::holds_alternative<ExitNow>(Parse({"--model", "/tmp", "--admission", "hopeful"})));
}

TEST(ConfigTest, TheDevice) {
  const auto parsed =
      Parse({"--model", "/tmp", "--backend", "cuda", "--device", "3", "--kv-format", "fp8",
             "--batch-invariant", "true", "--pool-bytes", "auto", "--tensor-parallel", "4"});
  ASSERT_TRUE(std::holds_alternative<Config>(parsed)) << std::get<ExitNow>(parsed).text;
  const Config& config = std::get<Config>(parsed);
  EXPECT_EQ(config.backend, "cuda");
  EXPECT_EQ(config.device, 3);
  EXPECT_EQ(config.tensor_parallel, 4);
  EXPECT_EQ(config.kv_format, "fp8");
  EXPECT_TRUE(config.batch_invariant);
  EXPECT_EQ(config.pool_bytes, 0u);
  EXPECT_EQ(std::get<Config>(Parse({"--model", "/tmp"})).pool_bytes, 0u);
}

TEST(ConfigTest, TheFormatOfTheWeights) {
  const std::vector<std::pair<std::string, kernels::WeightFormat>> known = {
      {"auto", kernels::WeightFormat::kBf16},
      {"bf16", kernels::WeightFormat::kBf16},
      {"int8", kernels::WeightFormat::kInt8},
      {"int4", kernels::WeightFormat::kInt4},
      {"fp8", kernels::WeightFormat::kFp8}};
  for (const auto& [name, format] : known) {
    const auto parsed = Parse({"--model", "/tmp", "--weights", name});
    ASSERT_TRUE(std::holds_alternative<Config>(parsed)) << name;
    EXPECT_EQ(std::get<Config>(parsed).WeightFormat(), format) << name;
  }
}

TEST(ConfigTest, TheDeviceIsChecked) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> wrong = {
      {"--backend", {"--backend", "gpu"}},
      {"--device", {"--device", "-1"}},
      {"--tensor-parallel", {"--tensor-parallel", "0"}},
      {"--tensor-parallel", {"--tensor-parallel", "65"}},
      {"--kv-format", {"--kv-format", "int8"}},
      {"--weights", {"--weights", "int5"}},
      {"--kv-format", {"--kv-format", "fp8", "--backend", "cpu"}},
      {"--pool-bytes", {"--pool-bytes", "automatic"}},
      {"--pool-bytes", {"--pool-bytes", "512KiB"}}};
  for (const auto& [flag, options] : wrong) {
    std::vector<std::string> args = {"--model", "/tmp"};
    args.insert(args.end(), options.begin(), options.end());
    const auto parsed = Parse(args);
    ASSERT_TRUE(std::holds_alternative<ExitNow>(parsed)) << options[1];
    EXPECT_THAT(std::get<ExitNow>(parsed).text, HasSubstr(flag)) << options[1];
  }
}

TEST(ConfigTest, AllProblemsAreReportedAtOnce) {
  const auto parsed = Parse({"--model", "/nowhere", "--page-tokens", "17", "--adapter", "Bad=/x",
                             "--max-rank", "0", "--listen", "0.0.0.0:1"});
  ASSERT_TRUE(std::holds_alternative<ExitNow>(parsed));
  const ExitNow& exit = std::get<ExitNow>(parsed);
  EXPECT_EQ(exit.code, 1);
  for (const char* flag : {"--model", "--page-tokens", "--adapter", "--max-rank", "--listen"}) {
    EXPECT_THAT(exit.text, HasSubstr(flag));
  }
}

TEST(ConfigTest, RulesOfTheScheduler) {
  const auto policy = [](std::vector<std::string> more) {
    std::vector<std::string> args{"--model", "/tmp"};
    args.insert(args.end(), more.begin(), more.end());
    SchedulerPolicy rules;
    std::get<Config>(Parse(args)).rules.Apply(&rules);
    return rules;
  };
  // What is not said is as the policy has it.
  const SchedulerPolicy plain = policy({}), same;
  EXPECT_EQ(plain.ageing, same.ageing);
  EXPECT_EQ(plain.max_overtaken_time, same.max_overtaken_time);
  EXPECT_EQ(plain.parking_delay, same.parking_delay);
  EXPECT_EQ(plain.kept_places_share, same.kept_places_share);
  const SchedulerPolicy other =
      policy({"--max-step-adapter-bytes", "1GiB", "--output-price", "4.5", "--ageing", "0.25",
              "--max-overtakes", "7", "--give-way", "false"});
  EXPECT_EQ(other.max_adapter_bytes, 1u << 30);
  EXPECT_EQ(other.output_price, 4.5);
  EXPECT_EQ(other.ageing, std::chrono::milliseconds(250));
  EXPECT_EQ(other.max_overtakes, 7);
  EXPECT_FALSE(other.give_way);
  for (const auto& [flag, value] : {std::pair("--input-price", "-1"),
                                    {"--cached-price", "nan"},
                                    {"--kept-places-share", "0.95"},
                                    {"--ageing", "1e9"},
                                    {"--max-overtakes", "0"},
                                    {"--max-preemptions", "-1"}}) {
    const auto parsed = Parse({"--model", "/tmp", flag, value});
    ASSERT_TRUE(std::holds_alternative<ExitNow>(parsed)) << flag;
    EXPECT_THAT(std::get<ExitNow>(parsed).text, HasSubstr(flag));
  }
}

TEST(ConfigTest, HostCacheMustFitInMemory) {
  for (const char* bytes : {"1", "1000KiB", "1000000GiB"}) {
    const auto parsed = Parse({"--model", "/tmp", "--host-cache-bytes", bytes});
    ASSERT_TRUE(std::holds_alternative<ExitNow>(parsed)) << bytes;
    EXPECT_THAT(std::get<ExitNow>(parsed).text, HasSubstr("--host-cache-bytes"));
  }
  EXPECT_TRUE(
      std::holds_alternative<Config>(Parse({"--model", "/tmp", "--host-cache-bytes", "32MiB"})));
}

TEST(ConfigTest, RemoteAddressesNeedConsent) {
  EXPECT_TRUE(
      std::holds_alternative<ExitNow>(Parse({"--model", "/tmp", "--listen", "0.0.0.0:7433"})));
  EXPECT_TRUE(std::holds_alternative<Config>(
      Parse({"--model", "/tmp", "--listen", "0.0.0.0:7433", "--allow-remote"})));
}

TEST(ConfigTest, FileAndCommandLineTogether) {
  const std::string path = std::filesystem::temp_directory_path() /
                           ("lorad-config-test-" + std::to_string(::getpid()) + ".toml");
  std::ofstream(path) << "model = \"/tmp\"\nmax-running = 7\nmax-waiting = 9\n";
  const auto parsed = Parse({"--config", path, "--max-waiting", "11"});
  ASSERT_TRUE(std::holds_alternative<Config>(parsed)) << std::get<ExitNow>(parsed).text;
  EXPECT_EQ(std::get<Config>(parsed).max_running, 7);
  EXPECT_EQ(std::get<Config>(parsed).max_waiting, 11);
  std::ofstream(path) << "model = \"/tmp\"\nmax-runing = 7\n";
  const auto typo = Parse({"--config", path});
  ASSERT_TRUE(std::holds_alternative<ExitNow>(typo));
  EXPECT_THAT(std::get<ExitNow>(typo).text, HasSubstr("max-runing"));
  std::filesystem::remove(path);
}

TEST(ConfigTest, TenantsHaveLimits) {
  const auto parsed = Parse({"--model", "/tmp", "--tenant",
                             "acme,max-adapters=10,max-bytes=1GiB,default-adapter=foo", "--tenant",
                             "other", "--tenant-max-adapters", "5", "--tenant-max-bytes", "2MiB"});
  ASSERT_TRUE(std::holds_alternative<Config>(parsed)) << std::get<ExitNow>(parsed).text;
  const TenantTable tenants = std::get<Config>(parsed).Tenants();
  EXPECT_EQ(
      tenants.Of("acme"),
      (TenantLimits{.max_adapters = 10, .max_bytes = int64_t{1} << 30, .default_adapter = "foo"}));
  for (const char* tenant : {"other", "unnamed"}) {
    EXPECT_EQ(tenants.Of(tenant), (TenantLimits{.max_adapters = 5, .max_bytes = 2 << 20}));
  }
  EXPECT_EQ(tenants.named().size(), 2u);
}

TEST(ConfigTest, TheQueueHasBounds) {
  const Config plain = std::get<Config>(Parse({"--model", "/tmp"}));
  EXPECT_EQ(plain.max_waiting, 1024);
  EXPECT_EQ(plain.max_waiting_tokens, 1 << 20);
  EXPECT_EQ(plain.max_waiting_bytes, 256u << 20);
  EXPECT_EQ(plain.Tenants().Of("acme").max_waiting, 0);
  const auto parsed = Parse({"--model", "/tmp", "--max-waiting", "5", "--max-waiting-tokens",
                             "1000", "--max-waiting-bytes", "2MiB", "--tenant-max-waiting", "3",
                             "--tenant", "acme,max-waiting=4"});
  ASSERT_TRUE(std::holds_alternative<Config>(parsed)) << std::get<ExitNow>(parsed).text;
  const Config& config = std::get<Config>(parsed);
  EXPECT_EQ(config.max_waiting, 5);
  EXPECT_EQ(config.max_waiting_tokens, 1000);
  EXPECT_EQ(config.max_waiting_bytes, 2u << 20);
  EXPECT_EQ(config.Tenants().Of("acme").max_waiting, 4);
  EXPECT_EQ(config.Tenants().Of("other").max_waiting, 3);
}

TEST(ConfigTest, ClassesHaveObjectives) {
  EXPECT_EQ(std::get<Config>(Parse({"--model", "/tmp"})).ClassObjectives(), Objectives());
  const auto parsed = Parse({"--model", "/tmp", "--objective", "interactive,ttft=500ms,itl=50ms",
                             "--objective", "batch,ttft=60s,refuse"});
  ASSERT_TRUE(std::holds_alternative<Config>(parsed)) << std::get<ExitNow>(parsed).text;
  Objectives expected;
  expected[0] = {.first_token = std::chrono::milliseconds(500),
                 .inter_token = std::chrono::milliseconds(50)};
  expected[2] = {.first_token = std::chrono::seconds(60), .refuse = true};
  EXPECT_EQ(std::get<Config>(parsed).ClassObjectives(), expected);
  const auto twice =
      Parse({"--model", "/tmp", "--objective", "batch,itl=1s", "--objective", "batch,ttft=1s"});
  ASSERT_TRUE(std::holds_alternative<ExitNow>(twice));
  EXPECT_THAT(std::get<ExitNow>(twice).text, HasSubstr("batch is given twice"));
}

TEST(ConfigTest, DefaultsOfVersionsPinsAndPrefixes) {
  const auto parsed = Parse({"--model", "/tmp"});
  const Config& config = std::get<Config>(parsed);
  EXPECT_EQ(config.keep_versions, 2);
  EXPECT_EQ(config.max_pinned_percent, 50);
  EXPECT_EQ(config.adapter_wait_timeout_s, 30);
  EXPECT_TRUE(config.prefix_cache);
  EXPECT_FALSE(config.share_base_prefixes);
  EXPECT_EQ(config.Tenants().Of("acme"), TenantLimits());
  const auto changed = Parse({"--model", "/tmp", "--keep-versions", "0", "--max-pinned-percent",
                              "100", "--adapter-wait-timeout", "2.5", "--prefix-cache", "false",
                              "--share-base-prefixes", "true"});
  const Config& other = std::get<Config>(changed);
  EXPECT_EQ(other.keep_versions, 0);
  EXPECT_EQ(other.max_pinned_percent, 100);
  EXPECT_EQ(other.adapter_wait_timeout_s, 2.5);
  EXPECT_FALSE(other.prefix_cache);
  EXPECT_TRUE(other.share_base_prefixes);
}

TEST(ConfigTest, EachBadOptionOfTenantsAndVersionsIsNamed) {
  const std::pair<const char*, const char*> bad[] = {
      {"--keep-versions", "-1"},          {"--max-pinned-percent", "101"},
      {"--adapter-wait-timeout", "0"},    {"--tenant-max-adapters", "-1"},
      {"--tenant-max-waiting", "-1"},     {"--max-waiting", "0"},
      {"--max-waiting-tokens", "0"},      {"--max-waiting-bytes", "1KiB"},
      {"--objective", "interactive"},     {"--tenant", "Acme"},
      {"--tenant", "acme,max-adapters=x"}};
  for (const auto& [option, value] : bad) {
    const auto parsed = Parse({"--model", "/tmp", option, value});
    ASSERT_TRUE(std::holds_alternative<ExitNow>(parsed)) << option << " " << value;
    EXPECT_THAT(std::get<ExitNow>(parsed).text, HasSubstr(option)) << value;
  }
  const auto twice = Parse({"--model", "/tmp", "--tenant", "acme", "--tenant", "acme"});
  ASSERT_TRUE(std::holds_alternative<ExitNow>(twice));
  EXPECT_THAT(std::get<ExitNow>(twice).text, HasSubstr("twice"));
}

TEST(ConfigTest, TenantsMayStandInTheFile) {
  const std::string path = std::filesystem::temp_directory_path() /
                           ("lorad-tenants-test-" + std::to_string(::getpid()) + ".toml");
  std::ofstream(path) << "model = \"/tmp\"\ntenant = [\"acme,max-adapters=10,max-bytes=1KiB\", "
                         "\"other,default-adapter=foo\"]\n";
  const auto parsed = Parse({"--config", path});
  ASSERT_TRUE(std::holds_alternative<Config>(parsed)) << std::get<ExitNow>(parsed).text;
  const TenantTable tenants = std::get<Config>(parsed).Tenants();
  EXPECT_EQ(tenants.Of("acme"), (TenantLimits{.max_adapters = 10, .max_bytes = 1024}));
  EXPECT_EQ(tenants.Of("other").default_adapter, "foo");
  std::filesystem::remove(path);
}

TEST(ConfigTest, HelpTeaches) {
  const auto parsed = Parse({"--help"});
  ASSERT_TRUE(std::holds_alternative<ExitNow>(parsed));
  EXPECT_EQ(std::get<ExitNow>(parsed).code, 0);
  EXPECT_THAT(std::get<ExitNow>(parsed).text, HasSubstr("Examples:"));
}

TEST(LogTest, FieldsCannotForgeLines) {
  EXPECT_EQ(EscapeForLog("plain"), "plain");
  EXPECT_EQ(EscapeForLog(""), "\"\"");
  EXPECT_EQ(EscapeForLog("a\nb"), "\"a\\x0ab\"");
  EXPECT_EQ(EscapeForLog("a=b \"c\""), "\"a=b \\\"c\\\"\"");
  EXPECT_LE(EscapeForLog(std::string(1 << 20, 'x')).size(), 300u);
}

}  // namespace
}  // namespace lorad
