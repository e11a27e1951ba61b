#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace g2sd {

/// A JSON value (RFC 8259). Whole numbers and others are told apart; objects keep their order.
class Json {
  public:
    using Array = std::vector<Json>;
    using Object = std::vector<std::pair<std::string, Json>>;

    // Implicit, so that a JSON value is written down as what it is.
    // NOLINTBEGIN(cppcoreguidelines-explicit-constructor,misc-explicit-constructor,google-explicit-constructor)
    Json() = default;
    Json(std::nullptr_t /*null*/) {}
    Json(bool value) : value_(value) {}
    Json(int value) : value_(static_cast<std::int64_t>(value)) {}
    Json(std::int64_t value) : value_(value) {}
    Json(std::size_t value) : value_(static_cast<std::int64_t>(value)) {}
    Json(double value) : value_(value) {}
    Json(const char* value) : value_(std::string(value)) {}
    Json(std::string value) : value_(std::move(value)) {}
    Json(Array value) : value_(std::move(value)) {}
    Json(Object value) : value_(std::move(value)) {}
    // NOLINTEND(cppcoreguidelines-explicit-constructor,misc-explicit-constructor,google-explicit-constructor)

    bool is_null() const { return std::holds_alternative<std::nullptr_t>(value_); }
    bool is_string() const { return std::holds_alternative<std::string>(value_); }
    bool is_number() const { return is_integer() || std::holds_alternative<double>(value_); }
    bool is_integer() const { return std::holds_alternative<std::int64_t>(value_); }

    /// The value as what it is. Throws UserError, saying what was wanted, where it is something else.
    const std::string& string() const;
    std::int64_t integer() const;
    double number() const;
    const Array& array() const;
    const Object& object() const;

    /// A member of an object; nullptr where there is none.
    const Json* find(std::string_view key) const;
    /// A member of an object. Throws UserError, naming the key, where there is none.
    const Json& at(std::string_view key) const;

    /// JSON on one line. A number that is not finite, which JSON cannot hold, is written as null.
    std::string dump() const;

  private:
    std::variant<std::nullptr_t, bool, std::int64_t, double, std::string, Array, Object> value_{nullptr};
};

/// Read one JSON value and nothing after it.
///
/// Stricter than many readers: no NaN, no comments, no trailing commas, no key twice in an object, valid UTF-8.
/// Throws UserError that names the byte where reading stopped.
Json parse_json(std::string_view text);

}  // namespace g2sd
