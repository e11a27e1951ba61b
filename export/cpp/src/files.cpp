#include "files.hpp"

#include <algorithm>
#include <array>
#include <fstream>
#include <vector>

#include "error.hpp"
#include "sha256.hpp"
#include "text.hpp"

namespace fs = std::filesystem;

namespace g2sd {
namespace {

constexpr std::size_t block_bytes = std::size_t{1} << 20U;

FileRecord record_of(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        throw UserError("cannot be read");
    }
    Sha256 digest;
    std::int64_t size = 0;
    Bytes block(block_bytes);
    while (file) {
        file.read(reinterpret_cast<char*>(block.data()), static_cast<std::streamsize>(block.size()));
        digest.update(block.data(), static_cast<std::size_t>(file.gcount()));
        size += file.gcount();
    }
    if (file.bad()) {
        throw UserError("cannot be read to its end");
    }
    return {digest.hex(), size};
}

std::string difference(const FileRecord& found, const FileRecord& wanted) {
    if (found.bytes != wanted.bytes) {
        return concat("holds ", found.bytes, " bytes, the manifest says ", wanted.bytes);
    }
    if (found.sha256 != wanted.sha256) {
        return concat("was changed (sha256 ", found.sha256.substr(0, 12), "..., the manifest says ",
                      wanted.sha256.substr(0, 12), "...)");
    }
    return "";
}

bool lies_outside(const std::string& name) {
    const fs::path path(name);
    return path.is_absolute() || name.find_first_of("\\:") != std::string::npos ||
           std::find(path.begin(), path.end(), fs::path("..")) != path.end();
}

std::string problem_of(const fs::path& folder, const std::string& name, const FileRecord& record) {
    if (lies_outside(name)) {
        return "lies outside the bundle";
    }
    const fs::path path = folder / name;
    if (!fs::is_regular_file(path)) {
        return "missing";
    }
    try {
        return difference(record_of(path), record);
    } catch (const UserError& error) {
        return error.what();
    }
}

/// Files below a folder, links among them; a link to a folder counts as a file, for nothing below it is followed.
std::vector<std::string> names_in(const fs::path& folder) {
    std::vector<std::string> names;
    for (auto entry = fs::recursive_directory_iterator(folder); entry != fs::recursive_directory_iterator(); ++entry) {
        if (entry->is_directory() && !entry->is_symlink()) {
            if (entry->path().filename() == "__pycache__") {
                entry.disable_recursion_pending();
            }
            continue;
        }
        names.push_back(entry->path().lexically_relative(folder).generic_string());
    }
    std::sort(names.begin(), names.end());
    return names;
}

}  // namespace

Bytes read_file(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (!fs::is_regular_file(path) || !file) {
        throw UserError(path.string() + ": no such file, or it cannot be read");
    }
    Bytes content(fs::file_size(path));
    file.read(reinterpret_cast<char*>(content.data()), static_cast<std::streamsize>(content.size()));
    if (static_cast<std::size_t>(file.gcount()) != content.size()) {
        throw UserError(path.string() + ": ended while it was read");
    }
    return content;
}

Bytes read_checked(const fs::path& folder, const std::string& name, const FileRecord& record) {
    const fs::path path = folder / name;
    Bytes content;
    try {
        content = read_file(path);
    } catch (const UserError& error) {
        throw IntegrityError(error.what());
    }
    const FileRecord found{sha256_of(content), static_cast<std::int64_t>(content.size())};
    if (const std::string problem = difference(found, record); !problem.empty()) {
        throw IntegrityError(path.string() + ": " + problem);
    }
    return content;
}

std::map<std::string, std::string> problems_of(const fs::path& folder, const std::map<std::string, FileRecord>& files,
                                               const std::set<std::string>& beside) {
    std::map<std::string, std::string> problems;
    for (const auto& [name, record] : files) {
        if (const std::string problem = problem_of(folder, name, record); !problem.empty()) {
            problems.emplace(name, problem);
        }
    }
    for (const std::string& name : names_in(folder)) {
        if (files.count(name) == 0 && beside.count(name) == 0) {
            problems.emplace(name, "is not listed in the manifest, so nobody tested it; remove it");
        }
    }
    return problems;
}

}  // namespace g2sd
