#include "client/loractl/json.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>
#include <google/protobuf/util/time_util.h>

#include <map>
#include <nlohmann/json.hpp>
#include <utility>

namespace lorad::loractl {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using Json = nlohmann::ordered_json;

Json Convert(const Message& message);

// Floats as the shortest decimal that means the same float, not its expansion as a double.
Json FromFloat(float value) {
  char text[32];
  snprintf(text, sizeof(text), "%.7g", static_cast<double>(value));
  return std::strtod(text, nullptr);
}

Json Singular(const Message& m, const FieldDescriptor* f) {
  const auto* r = m.GetReflection();
  switch (f->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return r->GetInt32(m, f);
    case FieldDescriptor::CPPTYPE_INT64:
      return r->GetInt64(m, f);
    case FieldDescriptor::CPPTYPE_UINT32:
      return r->GetUInt32(m, f);
    case FieldDescriptor::CPPTYPE_UINT64:
      return r->GetUInt64(m, f);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return r->GetDouble(m, f);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return FromFloat(r->GetFloat(m, f));
    case FieldDescriptor::CPPTYPE_BOOL:
      return r->GetBool(m, f);
    case FieldDescriptor::CPPTYPE_ENUM:
      return r->GetEnum(m, f)->name();
    case FieldDescriptor::CPPTYPE_STRING:
      return r->GetString(m, f);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return Convert(r->GetMessage(m, f));
  }
  return nullptr;
}

Json Element(const Message& m, const FieldDescriptor* f, int i) {
  const auto* r = m.GetReflection();
  switch (f->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return r->GetRepeatedInt32(m, f, i);
    case FieldDescriptor::CPPTYPE_INT64:
      return r->GetRepeatedInt64(m, f, i);
    case FieldDescriptor::CPPTYPE_UINT32:
      return r->GetRepeatedUInt32(m, f, i);
    case FieldDescriptor::CPPTYPE_UINT64:
      return r->GetRepeatedUInt64(m, f, i);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return r->GetRepeatedDouble(m, f, i);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return FromFloat(r->GetRepeatedFloat(m, f, i));
    case FieldDescriptor::CPPTYPE_BOOL:
      return r->GetRepeatedBool(m, f, i);
    case FieldDescriptor::CPPTYPE_ENUM:
      return r->GetRepeatedEnum(m, f, i)->name();
    case FieldDescriptor::CPPTYPE_STRING:
      return r->GetRepeatedString(m, f, i);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return Convert(r->GetRepeatedMessage(m, f, i));
  }
  return nullptr;
}

// An object by key. REQUIRES: keys are strings.
Json FromMap(const Message& m, const FieldDescriptor* f) {
  const auto* r = m.GetReflection();
  std::map<std::string, Json> sorted;  // protobuf's order is any
  for (int i = 0; i < r->FieldSize(m, f); ++i) {
    const Message& entry = r->GetRepeatedMessage(m, f, i);
    const auto* type = entry.GetDescriptor();
    sorted[entry.GetReflection()->GetString(entry, type->map_key())] =
        Singular(entry, type->map_value());
  }
  Json object = Json::object();
  for (auto& [key, value] : sorted) object[key] = std::move(value);
  return object;
}

Json Convert(const Message& message) {
  const auto* type = message.GetDescriptor();
  if (type == google::protobuf::Duration::descriptor()) {
    const auto& d = dynamic_cast<const google::protobuf::Duration&>(message);
    return static_cast<double>(d.seconds()) + d.nanos() * 1e-9;
  }
  if (type == google::protobuf::Timestamp::descriptor()) {
    return google::protobuf::util::TimeUtil::ToString(
        dynamic_cast<const google::protobuf::Timestamp&>(message));
  }
  Json object = Json::object();
  for (int i = 0; i < type->field_count(); ++i) {
    const FieldDescriptor* field = type->field(i);
    if (field->is_map()) {
      object[field->name()] = FromMap(message, field);
    } else if (field->is_repeated()) {
      Json array = Json::array();
      const int n = message.GetReflection()->FieldSize(message, field);
      for (int k = 0; k < n; ++k) array.push_back(Element(message, field, k));
      object[field->name()] = std::move(array);
    } else if (!field->has_presence() || message.GetReflection()->HasField(message, field)) {
      object[field->name()] = Singular(message, field);
    }
  }
  return object;
}

}  // namespace

std::string ToJson(const Message& message) {
  return Convert(message).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace lorad::loractl
