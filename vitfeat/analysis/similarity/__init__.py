"""Two models compared by several measures, with intervals; trees and maps of models."""
