"""Chapter 00: the map of the course, two images at one MSE, the ledger of claims, and the doctor."""

from course_lib.start_here.chapters import CHAPTERS, Chapter
from course_lib.start_here.doctor import Finding, doctor
from course_lib.start_here.equal_mse import at_equal_mse
from course_lib.start_here.ledger import LEDGER, Claim

__all__ = ["CHAPTERS", "LEDGER", "Chapter", "Claim", "Finding", "at_equal_mse", "doctor"]
