#include "json.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <iterator>

#include "error.hpp"
#include "text.hpp"

namespace g2sd {
namespace {

template <typename Wanted, typename Value>
const Wanted& held(const Value& value, const char* what) {
    if (const auto* found = std::get_if<Wanted>(&value)) {
        return *found;
    }
    throw UserError(concat("a value is not ", what));
}

void write_string(const std::string& text, std::string& out) {
    constexpr std::string_view digits = "0123456789abcdef";
    out += '"';
    for (const char letter : text) {
        const auto code = static_cast<unsigned char>(letter);
        if (letter == '"' || letter == '\\') {
            out += '\\';
            out += letter;
        } else if (code < 0x20) {
            out += "\\u00";
            out += digits[code >> 4U];
            out += digits[code & 15U];
        } else {
            out += letter;
        }
    }
    out += '"';
}

void write_number(double value, std::string& out) {
    if (!std::isfinite(value)) {
        out += "null";
        return;
    }
    std::array<char, 32> text{};
    const auto* const end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
    const std::string_view digits(text.data(), static_cast<std::size_t>(end - text.data()));
    out += digits;
    if (digits.find_first_of(".e") == std::string_view::npos) {
        out += ".0";  // a float that happens to be whole stays a float for whoever reads it
    }
}

struct Writer {
    std::string* out;

    void operator()(std::nullptr_t /*null*/) const { *out += "null"; }
    void operator()(bool value) const { *out += value ? "true" : "false"; }
    void operator()(std::int64_t value) const { *out += std::to_string(value); }
    void operator()(double value) const { write_number(value, *out); }
    void operator()(const std::string& value) const { write_string(value, *out); }
    void operator()(const Json::Array& values) const {
        *out += '[';
        for (std::size_t index = 0; index < values.size(); ++index) {
            *out += (index == 0 ? "" : ", ") + values[index].dump();
        }
        *out += ']';
    }
    void operator()(const Json::Object& members) const {
        *out += '{';
        for (std::size_t index = 0; index < members.size(); ++index) {
            *out += index == 0 ? "" : ", ";
            write_string(members[index].first, *out);
            *out += ": " + members[index].second.dump();
        }
        *out += '}';
    }
};

}  // namespace

const std::string& Json::string() const {
    return held<std::string>(value_, "a string");
}

std::int64_t Json::integer() const {
    return held<std::int64_t>(value_, "a whole number");
}

double Json::number() const {
    return is_integer() ? static_cast<double>(integer()) : held<double>(value_, "a number");
}

const Json::Array& Json::array() const {
    return held<Array>(value_, "a list");
}

const Json::Object& Json::object() const {
    return held<Object>(value_, "an object");
}

const Json* Json::find(std::string_view key) const {
    const auto& members = object();
    const auto found =
        std::find_if(members.begin(), members.end(), [key](const auto& member) { return member.first == key; });
    return found == members.end() ? nullptr : &found->second;
}

const Json& Json::at(std::string_view key) const {
    if (const Json* found = find(key)) {
        return *found;
    }
    throw UserError(concat("it lacks ", key));
}

std::string Json::dump() const {
    std::string out;
    std::visit(Writer{&out}, value_);
    return out;
}

}  // namespace g2sd
