#pragma once

#include <span>
#include <string>

#include "fovea/response.h"
#include "fovea/result.h"

#include "args.h"
#include "batch_journal.h"
#include "batch_pictures.h"

namespace fovea::cli {

/// What the exports are made from. Refers to all of it.
struct BatchExport {
  const BatchArgs& args;
  const BatchPictures& pictures;
  const BatchJournal& journal;
};

/// Whether what the arguments name can be written, and, where nothing has been answered yet, that
/// it is not there already (unless they allow to overwrite). Before the first question.
Status check_exports(const BatchExport& what);

/// Writes the table and the data sets that the arguments name, from the journal, each file whole or
/// not at all; an older one is replaced. The table has every picture; the data sets leave out those
/// whose questions are not all answered. Errors name the file.
Status write_exports(const BatchExport& what);

/// The lines of a YOLO label file: class index, centre, width and height as fractions.
std::string yolo_labels(std::span<const Response> responses);

}  // namespace fovea::cli
